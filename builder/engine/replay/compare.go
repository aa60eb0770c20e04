package replay

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/optbuild/optbuild/builder/samefile"
	"github.com/optbuild/optbuild/builder/trace"
)

// verify compares what a step has made with the layer that would have been replayed.
func (st *step) verify(t *trace.Trace) error {
	stored := filepath.Join(st.r.layers.SharedPath(t.Layer), "fs")
	path, err := firstDifference(stored, st.root.Directory)
	if err != nil {
		return fmt.Errorf("verify %s: %w", st.name, err)
	}
	if path != "" {
		return fmt.Errorf("verify: %s would have been replayed, but running it made another %s", st.name, path)
	}
	return nil
}

// discard removes what the step has made.
func (st *step) discard() error {
	entries, err := os.ReadDir(st.root.Directory)
	if err != nil {
		return fmt.Errorf("discard what %s has made: %w", st.name, err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(st.root.Directory, e.Name())); err != nil {
			return fmt.Errorf("discard what %s has made: %w", st.name, err)
		}
	}
	return nil
}

// firstDifference returns the first name below which two directories differ in content, mode or owner, "" if there is none. Times are not compared.
func firstDifference(a, b string) (differs string, err error) {
	walk := func(from, to string, each func(rel string, x, y fs.FileInfo) (bool, error)) error {
		return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(from, path)
			if err != nil {
				return err
			}
			x, err := d.Info()
			if err != nil {
				return err
			}
			y, err := os.Lstat(filepath.Join(to, rel))
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
				return err
			}
			same, err := err == nil, nil
			if same {
				same, err = each(rel, x, y)
			}
			if !same && err == nil {
				differs, err = rel, fs.SkipAll
			}
			return err
		})
	}
	err = walk(a, b, func(rel string, x, y fs.FileInfo) (bool, error) {
		return sameFile(filepath.Join(a, rel), filepath.Join(b, rel), x, y)
	})
	if err != nil || differs != "" {
		return differs, err
	}
	err = walk(b, a, func(string, fs.FileInfo, fs.FileInfo) (bool, error) { return true, nil })
	return differs, err
}

func sameFile(a, b string, x, y fs.FileInfo) (bool, error) {
	s, ok1 := x.Sys().(*syscall.Stat_t)
	t, ok2 := y.Sys().(*syscall.Stat_t)
	if !ok1 || !ok2 || s.Mode != t.Mode || s.Uid != t.Uid || s.Gid != t.Gid || s.Rdev != t.Rdev {
		return false, nil
	}
	switch {
	case x.Mode().IsRegular():
		if x.Size() != y.Size() {
			return false, nil
		}
		return samefile.Content(a, b)
	case x.Mode()&fs.ModeSymlink != 0:
		return sameLink(a, b)
	}
	return true, nil
}

func sameLink(a, b string) (bool, error) {
	x, err := os.Readlink(a)
	if err != nil {
		return false, err
	}
	y, err := os.Readlink(b)
	return x == y, err
}

// sawNearlyAll says that most of what is in the watched directories was looked at.
func sawNearlyAll(in *inputs, layers []trace.Layer) bool {
	seen, all := 0, 0
	for i, w := range in.watched {
		for _, e := range layers[i].Entries {
			if e.What&trace.Absent == 0 {
				seen++
			}
		}
		err := filepath.WalkDir(w.dir, func(_ string, _ fs.DirEntry, err error) error {
			all++
			return err
		})
		if err != nil {
			return false
		}
	}
	return seen*10 >= all*9
}
