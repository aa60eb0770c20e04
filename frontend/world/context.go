package world

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/continuity/sysx"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"

	"github.com/optbuild/optbuild/frontend/plan"
)

// maxEntries bounds the listing of a context: beyond it, what is listed is there and nothing is known of the rest.
const maxEntries = 100_000

// Ignore reads the ignore file that holds for the Dockerfile: its own <name>.dockerignore, or else the context's. name is "" if there is none.
func (s *Source) Ignore() (name string, text []byte, err error) {
	names := []string{filepath.Join(s.Context, ".dockerignore")}
	if s.Path != "" {
		names = append([]string{s.Path + ".dockerignore"}, names...)
	}
	for _, name := range names {
		b, err := readRegular(name, dockerfileLimit)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EISDIR) {
			continue
		}
		if err != nil {
			return "", nil, fmt.Errorf("read ignore file: %w", err)
		}
		return name, b, nil
	}
	return "", nil, nil
}

// readRegular reads a file that may be somebody else's: not a pipe that nobody writes to, and no more than limit bytes.
func readRegular(name string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if fi.IsDir() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: syscall.EISDIR}
	}
	if !fi.Mode().IsRegular() || fi.Size() > limit {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("is no regular file, or too large")}
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

// tree is a listing of a context.
type tree struct {
	root     string
	paths    map[string]plan.Path
	sizes    map[string]int64 // of regular files
	complete bool
}

// list walks the context. Which paths are ignored is BuildKit's own decision: the filter is the one that its clients put around a context.
func list(root string, ignore []string) (*tree, error) { return listUpTo(root, ignore, maxEntries) }

func listUpTo(root string, ignore []string, limit int) (*tree, error) {
	t := &tree{root: root, paths: map[string]plan.Path{}, sizes: map[string]int64{}, complete: true}
	fi, err := os.Stat(root)
	if err != nil {
		return nil, fmt.Errorf("list context: %w", err)
	}
	t.paths["."] = plan.Path{Exists: true, Mode: fi.Mode()}
	filtered, err := fsutil.NewFilterFS(&walker{root, &t.complete}, &fsutil.FilterOpt{ExcludePatterns: ignore})
	if err != nil {
		return nil, fmt.Errorf("read ignore patterns: %w", err)
	}
	err = filtered.Walk(context.Background(), "", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if len(t.paths) >= limit {
			return errFull
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		stat := fi.Sys().(*types.Stat)
		t.paths[filepath.ToSlash(name)] = plan.Path{Exists: true, Mode: fi.Mode(), Link: stat.Linkname}
		if fi.Mode().IsRegular() {
			t.sizes[filepath.ToSlash(name)] = stat.Size
		}
		return nil
	})
	if errors.Is(err, errFull) {
		t.complete, err = false, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list context: %w", err)
	}
	return t, nil
}

var errFull = errors.New("the context has too many entries")

// walker is a directory as fsutil's filter wants it. fsutil's own asks for extended attributes and hard links as well, which costs more than all
// the rest; here, what is ignored is not even looked at.
type walker struct {
	root     string
	complete *bool
}

func (w *walker) Open(name string) (io.ReadCloser, error) {
	return os.Open(filepath.Join(w.root, name))
}

func (w *walker) Walk(_ context.Context, dir string, fn fs.WalkDirFunc) error {
	entries, err := os.ReadDir(filepath.Join(w.root, dir))
	if err != nil { // the build would say so; here the rest is listed
		*w.complete = false
	}
	for _, d := range entries {
		name := filepath.Join(dir, d.Name())
		err := fn(name, &entry{d, w.root, name}, nil)
		if errors.Is(err, fs.SkipDir) {
			continue
		}
		if err != nil {
			return err
		}
		if d.IsDir() {
			if err := w.Walk(context.Background(), name, fn); err != nil {
				return err
			}
		}
	}
	return nil
}

// entry is a directory entry whose Info has a *types.Stat.
type entry struct {
	fs.DirEntry
	root, name string
}

func (e *entry) Info() (fs.FileInfo, error) {
	fi, err := e.DirEntry.Info()
	if err != nil {
		return nil, err
	}
	stat := &types.Stat{Path: e.name, Mode: uint32(fi.Mode() &^ fs.ModeSocket), Size: fi.Size()}
	if fi.Mode()&fs.ModeSymlink != 0 {
		if stat.Linkname, err = os.Readlink(filepath.Join(e.root, e.name)); err != nil {
			return nil, err
		}
	}
	return &fsutil.StatInfo{Stat: stat}, nil
}

const (
	maxFile      = 4 << 20  // of a file whose content is read
	maxTotal     = 32 << 20 // of all of them
	maxManifests = 1000
)

// read reads what is wanted, tells whether ADD would unpack it, and reads the manifests of package managers.
func (t *tree) read(wants []string) {
	names := make([]string, 0, len(t.sizes))
	for name := range t.sizes {
		names = append(names, name)
	}
	slices.Sort(names)
	left, manifests := int64(maxTotal), 0
	wanted := map[string]bool{}
	for _, w := range wants {
		w = path.Clean(strings.TrimPrefix(w, "/"))
		if _, ok := t.sizes[w]; ok {
			wanted[w] = true
		} else if strings.ContainsAny(w, `*?[\`) {
			for _, name := range names {
				if ok, err := path.Match(w, name); ok && err == nil {
					wanted[name] = true
				}
			}
		}
	}
	for _, name := range names {
		manifest := isManifest(name)
		if manifest {
			manifests++
		}
		if !wanted[name] && (!manifest || manifests > maxManifests) {
			continue
		}
		p := t.paths[name]
		if p.Data != nil && (p.Sniffed || !wanted[name]) { // by an earlier call
			left -= int64(len(p.Data))
			continue
		}
		file := filepath.Join(t.root, filepath.FromSlash(name))
		if size := t.sizes[name]; size <= maxFile && size <= left {
			if b, err := readRegular(file, maxFile); err == nil {
				p.Data = b
				left -= int64(len(b))
			}
		}
		if wanted[name] {
			p.Archive, p.Sniffed = sniff(file)
			names, err := sysx.LListxattr(file)
			p.Xattrs = len(names) > 0 || err != nil && !errors.Is(err, syscall.ENOTSUP)
		}
		t.paths[name] = p
	}
}

// manifests are files by which package managers know what to install; in lower case.
var manifests = setOf(`
	package.json package-lock.json npm-shrinkwrap.json yarn.lock .yarnrc .yarnrc.yml pnpm-lock.yaml pnpm-workspace.yaml .npmrc bun.lock bunfig.toml
	constraints.txt pyproject.toml setup.py setup.cfg poetry.lock poetry.toml uv.lock uv.toml pipfile pipfile.lock
	go.mod go.sum go.work go.work.sum
	cargo.toml cargo.lock
	gemfile gemfile.lock
	composer.json composer.lock
	pom.xml build.gradle build.gradle.kts settings.gradle settings.gradle.kts gradle.properties gradle-wrapper.properties
	nuget.config global.json packages.lock.json`)

// manifestEndings are how the names of more of them end.
var manifestEndings = []string{"requirements.txt", ".gemspec", ".versions.toml", ".csproj", ".fsproj", ".sln", ".props"}

func setOf(words string) map[string]bool {
	set := map[string]bool{}
	for _, w := range strings.Fields(words) {
		set[w] = true
	}
	return set
}

// isManifest reports whether the path is a manifest of the project, and not one of what it has installed.
func isManifest(name string) bool {
	dir, base := path.Split(name)
	base = strings.ToLower(base)
	if !manifests[base] && !slices.ContainsFunc(manifestEndings, func(end string) bool { return strings.HasSuffix(base, end) }) && !(strings.HasPrefix(base, "requirements") && strings.HasSuffix(base, ".txt")) {
		return false
	}
	for _, d := range strings.Split(dir, "/") {
		switch d {
		case "node_modules", "vendor", ".git", "target", "site-packages":
			return false
		}
	}
	return true
}
