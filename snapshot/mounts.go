package snapshot

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
)

const (
	lowerOption = "lowerdir="
	upperOption = "upperdir="
	workOption  = "workdir="
)

// resolve replaces the directories of aliases by those of the shared layers. The kernel would follow the links, but BuildKit
// takes the upper directory of a layer from these mounts and walks it, and a walk doesn't follow the link that it starts with:
// it would see an empty layer. A link on the way, as in mountName, it does follow.
func (l *Layers) resolve(mounts []mount.Mount) ([]mount.Mount, error) {
	for i, m := range mounts {
		var err error
		switch m.Type {
		case "bind":
			mounts[i], err = l.resolveBind(m)
		case "overlay":
			mounts[i], err = l.resolveOverlay(m)
		}
		if err != nil {
			return nil, err
		}
	}
	return mounts, nil
}

// resolveBind resolves the mount of a snapshot that consists of one directory.
func (l *Layers) resolveBind(m mount.Mount) (mount.Mount, error) {
	d, err := l.directoryAt(m.Source)
	if err != nil || !d.elsewhere() {
		return m, err
	}
	m.Source = l.mountName(d)
	m.Options = slices.Clone(m.Options)
	for i, o := range m.Options {
		if o == "rw" {
			m.Options[i] = "ro"
		}
	}
	return m, nil
}

// resolveOverlay resolves the mount of a snapshot that consists of several directories. An upper directory that is shared
// becomes the topmost lower one, and then there is no upper one.
func (l *Layers) resolveOverlay(m mount.Mount) (mount.Mount, error) {
	lower, err := l.lower(m)
	if err != nil {
		return m, err
	}
	paths := make([]string, 0, len(lower)+1)
	alias := false
	if upper := option(m, upperOption); upper != "" {
		d, err := l.directoryAt(upper)
		if err != nil {
			return m, err
		}
		if alias = d.elsewhere(); alias {
			paths = append(paths, l.mountName(d))
		}
	}
	for _, d := range lower {
		paths = append(paths, l.mountName(d))
	}
	if alias {
		m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool {
			return strings.HasPrefix(o, upperOption) || strings.HasPrefix(o, workOption)
		})
	}
	if m = withLower(m, paths); l.tooLong(m) {
		// The links themselves are shorter still, and what containerd alone would mount. The topmost directory may be walked; that it is found by comparing names with
		// those of another mount is lost.
		first := len(paths) - len(lower)
		for i, d := range lower {
			if first+i > 0 || option(m, upperOption) != "" {
				paths[first+i] = l.own(d.Number)
			}
		}
		m = withLower(m, paths)
	}
	return m, nil
}

// replaceLower asks f for the lower directories of a mount that was resolved.
func (l *Layers) replaceLower(ctx context.Context, key string, mounts []mount.Mount, f LowerFunc) ([]mount.Mount, error) {
	if len(mounts) != 1 || mounts[0].Type != "overlay" || option(mounts[0], upperOption) == "" {
		return mounts, nil
	}
	chain, err := l.Chain(ctx, key)
	if err != nil {
		return nil, err
	}
	paths, options, err := f(ctx, key, chain[1:])
	if err != nil {
		return nil, fmt.Errorf("replace lower directories: %w", err)
	}
	m := mounts[0]
	if len(paths) > 0 {
		m = withLower(m, l.names(chain[1:], paths))
	}
	m.Options = append(slices.Clone(m.Options), options...)
	return []mount.Mount{m}, nil
}

// lower returns the lower directories of an overlay, the topmost first.
func (l *Layers) lower(m mount.Mount) ([]Directory, error) {
	paths := strings.Split(option(m, lowerOption), ":")
	directories := make([]Directory, len(paths))
	for i, path := range paths {
		var err error
		if directories[i], err = l.directoryAt(path); err != nil {
			return nil, err
		}
	}
	return directories, nil
}

// directoryAt is directory for a path that containerd's snapshotter made: snapshots/N/fs.
func (l *Layers) directoryAt(path string) (Directory, error) {
	return l.directory(filepath.Base(filepath.Dir(path)))
}

// option returns the value of the mount's option that begins with prefix.
func option(m mount.Mount, prefix string) string {
	for _, o := range m.Options {
		if value, ok := strings.CutPrefix(o, prefix); ok {
			return value
		}
	}
	return ""
}

// withLower returns the mount with other lower directories.
func withLower(m mount.Mount, paths []string) mount.Mount {
	m.Options = slices.Clone(m.Options)
	for i, o := range m.Options {
		if strings.HasPrefix(o, lowerOption) {
			m.Options[i] = lowerOption + strings.Join(paths, ":")
		}
	}
	return m
}
