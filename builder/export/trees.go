package export

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/continuity/fs"
	"github.com/moby/buildkit/cache"
	bksnapshot "github.com/moby/buildkit/snapshot"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/builder/export/strip"
)

// Snapshotters without overlayfs have no directory for each layer, but one with all files for each (native), or can be mounted so (fuse-overlayfs). There the layer of a unit is found by comparing: the files
// with the unit with those without, and, for what is not seen in that (a file that got its old time back), those after each step with those before it. It takes a walk of all files for
// each step.

// trees are the files of an image as they were after some of its steps.
type trees struct {
	base  string     // of the base image; "" if there is none
	below string     // below the unit; "" if it is the lowest
	steps []treeStep // those that are made by units' members or are no RUN's, the lowest first
}

// treeStep is what there is before and after one step.
type treeStep struct {
	before, after string // before is "" for the lowest
	made          bool   // a RUN made the step
	member        bool   // it belongs to the unit
}

// top are the files with the unit.
func (t *trees) top() string { return t.steps[len(t.steps)-1].after }

// members counts the steps of the unit.
func (t *trees) members() (n int) {
	for _, s := range t.steps {
		if s.member {
			n++
		}
	}
	return n
}

// withoutLayers is true of the mount of so many layers if it has no directories of single ones.
func withoutLayers(m mount.Mount, layers int) bool {
	return m.Type != "overlay" && (m.Type != "bind" || layers > 1)
}

// depthOf counts the layers of a reference. One that was laid upon others that it knows nothing of (COPY --link) has fewer than its image has up to it.
func depthOf(ref cache.ImmutableRef) int {
	chain := ref.LayerChain()
	defer chain.Release(context.Background())
	return len(chain)
}

// trees mounts what a unit is compared with.
func (j *job) trees(ctx context.Context, u unit) (_ *union, release func(), err error) {
	var releases []func() error
	release = func() {
		for _, f := range slices.Backward(releases) {
			if err := f(); err != nil {
				logrus.WithError(err).Warn("release the files of a layer")
			}
		}
	}
	defer func() {
		if err != nil {
			release()
		}
	}()
	mounted := map[int]string{-1: ""}
	files := func(layer int) (string, error) {
		if dir, ok := mounted[layer]; ok {
			return dir, nil
		}
		if depthOf(j.chain[layer]) != layer+1 {
			return "", fmt.Errorf("%w: they do not lie on each other", errUnsupported)
		}
		m, rel, err := j.mount(ctx, j.chain[layer])
		if err != nil {
			return "", err
		}
		releases = append(releases, rel)
		if m.Type == "bind" {
			mounted[layer] = m.Source
			return m.Source, nil
		}
		local := bksnapshot.LocalMounterWithMounts([]mount.Mount{m})
		dir, err := local.Mount()
		if err != nil {
			return "", err
		}
		releases = append(releases, local.Unmount)
		mounted[layer] = dir
		return dir, nil
	}
	t := &trees{}
	if t.base, err = files(j.base - 1); err != nil {
		return nil, nil, err
	}
	if t.below, err = files(u.first - 1); err != nil {
		return nil, nil, err
	}
	for i := j.base; i <= u.last; i++ {
		s := treeStep{made: j.kinds[i-j.base] == run, member: i >= u.first}
		if s.made && !s.member {
			continue
		}
		if s.before, err = files(i - 1); err != nil {
			return nil, nil, err
		}
		if s.after, err = files(i); err != nil {
			return nil, nil, err
		}
		t.steps = append(t.steps, s)
	}
	un := &union{trees: t}
	if !j.strip.Empty() && u.runs() > 0 {
		un.residue = func(path string) strip.Residue { return j.strip.Find(path, t.look) }
		un.near = j.strip.Near
	}
	return un, release, nil
}

// look is a strip.Look at the files with the unit.
func (t *trees) look(path string) (head []byte, ok bool) {
	file, err := fs.RootPath(t.top(), filepath.Dir(path))
	if err != nil {
		return nil, false
	}
	return headOf(filepath.Join(file, filepath.Base(path)))
}

// changes lists what tells the files with the unit from those without, as union.changes does.
func (t *trees) changes(ctx context.Context, residue func(string) strip.Residue) ([]change, error) {
	found := map[string]os.FileInfo{} // nil if deleted
	err := fs.Changes(ctx, t.below, t.top(), func(kind fs.ChangeKind, path string, fi os.FileInfo, err error) error {
		if kind == fs.ChangeKindDelete {
			fi = nil
		}
		if path != "/" && (kind != fs.ChangeKindUnmodified) {
			found[path] = fi
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	kept := map[string]bool{} // what a COPY brought
	for _, s := range t.steps {
		if s.made && !s.member || !s.member && residue == nil {
			continue
		}
		err := fs.Changes(ctx, s.before, s.after, func(kind fs.ChangeKind, path string, _ os.FileInfo, err error) error {
			if err != nil || kind == fs.ChangeKindDelete || kind == fs.ChangeKindUnmodified || path == "/" {
				return err
			}
			if !s.made {
				kept[path] = true
			}
			if _, known := found[path]; s.member && !known {
				if fi, err := os.Lstat(filepath.Join(t.top(), path)); err == nil { // as it was in the end, but not all the time
					found[path] = fi
				} else if !errors.Is(err, iofs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	var list []change
	for path, fi := range found {
		list = append(list, change{path: path, info: fi})
	}
	slices.SortFunc(list, func(a, b change) int { return compareTrees(a.path, b.path) })
	if residue == nil {
		residue = func(string) strip.Residue { return strip.Residue{} }
	}
	if list, err = t.leaveOut(list, kept, residue); err != nil {
		return nil, err
	}
	leaveWays(list)
	keepLinked(list)
	return list, nil
}

// leaveOut finds what is residue, by the rules of walker.entry.
func (t *trees) leaveOut(list []change, kept map[string]bool, residue func(string) strip.Residue) (out []change, err error) {
	for _, c := range list {
		if c.info == nil {
			out = append(out, c)
			continue
		}
		var what strip.Residue
		keep := kept[c.path] || t.base != "" && there(filepath.Join(t.base, c.path))
		if !keep {
			what = residue(c.path)
		}
		below := t.below != "" && there(filepath.Join(t.below, c.path))
		link := c.info.Mode()&os.ModeSymlink != 0
		if link && what.Rule != "" && residue(filepath.Dir(c.path)).Rule == "" {
			what = strip.Residue{}
		}
		if link {
			if c.link, err = linkOf(filepath.Join(t.top(), c.path), c.path); err != nil {
				return nil, err
			}
		}
		switch {
		case c.info.IsDir():
			c.way = what.Rule == "" && !keep && !below
			if !below {
				c.rule, c.root, c.dir = what.Rule, what.Root, what.Rule != ""
			}
		case what.Rule != "" && below && strip.Linked(what.Rule): // see walker.file
		case what.Rule != "" && below:
			out = append(out, change{path: c.path})
			fallthrough
		default:
			c.rule, c.root = what.Rule, what.Root
		}
		out = append(out, c)
	}
	return out, nil
}

// compareTrees orders paths as a walk of directories does.
func compareTrees(a, b string) int {
	return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
}

func there(file string) bool {
	_, err := os.Lstat(file)
	return err == nil
}
