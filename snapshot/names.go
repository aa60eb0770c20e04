package snapshot

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
)

// mountName is the name of a directory in the options of a mount. The kernel takes one page of them, and containerd leaves out what all lower directories begin with, so with hundreds of
// layers every byte below snapshots/ counts: an alias is named by its short link, snapshots/9/s/fs. Its last component is a directory and no link.
func (l *Layers) mountName(d Directory) string {
	if d.Remote != "" {
		return l.nameOf(d.Path)
	}
	if d.Shared == "" {
		return d.Path
	}
	if to, err := os.Readlink(l.short(d.Number)); err != nil || to != filepath.Dir(linkTo(d.Shared)) {
		return d.Path // it was made before there were short links
	}
	return filepath.Join(l.short(d.Number), filesDir)
}

// nameOf is the name of any path below the root, with the beginning that all lower directories have.
func (l *Layers) nameOf(path string) string {
	if rest, ok := strings.CutPrefix(path, l.root+"/"); ok {
		return filepath.Join(l.root, snapshotsDir) + "/../" + rest
	}
	return path
}

// Files is where the files of a directory are that a mount has: for an alias, that of its shared layer, so that one layer has one name.
func Files(path string) string {
	if to, err := os.Readlink(path); err == nil { // snapshots/9/fs
		return filepath.Join(filepath.Dir(path), to)
	}
	dir, files := filepath.Split(path)
	if to, err := os.Readlink(filepath.Clean(dir)); err == nil && filepath.Base(dir) == shortName { // snapshots/9/s/fs
		return filepath.Join(filepath.Dir(filepath.Clean(dir)), to, files)
	}
	return filepath.Clean(path)
}

// names are the shortest names of what WithLower's function wants to be mounted in place of the directories lower.
func (l *Layers) names(lower []Directory, paths []string) []string {
	known := make(map[string]Directory, len(lower))
	for _, d := range lower {
		known[d.Path] = d
	}
	names := make([]string, len(paths))
	for i, path := range paths {
		names[i] = l.nameOf(path)
		if d, ok := known[path]; ok {
			names[i] = l.mountName(d)
		}
	}
	return names
}

// Fits tells whether the kernel can mount a snapshot that was prepared with these lower directories instead of its own, as the function of WithLower would return them.
func (l *Layers) Fits(p Prepared, paths []string) bool {
	return !l.tooLong(mount.Mount{Options: []string{
		workOption + filepath.Join(filepath.Dir(p.Directory), "work"), upperOption + p.Directory, lowerOption + strings.Join(l.names(p.Lower, paths), ":"),
	}})
}

// spare is for options that are added later ("userxattr", "xino=on", "volatile").
const spare = 128 // bytes

// tooLong tells whether the options of an overlay don't go into one page, with what all lower directories begin with left out, as containerd does it.
func (l *Layers) tooLong(m mount.Mount) bool {
	size := spare
	for _, o := range m.Options {
		size += len(o) + len(",")
		if lower, ok := strings.CutPrefix(o, lowerOption); ok {
			common := filepath.Join(l.root, snapshotsDir) + "/"
			if n := strings.Count(":"+lower, ":"+common); n == strings.Count(lower, ":")+1 {
				size -= n * len(common)
			}
		}
	}
	return size > os.Getpagesize()
}
