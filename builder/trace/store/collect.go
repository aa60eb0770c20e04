package store

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/optbuild/optbuild/builder/atomicfile"
)

const (
	maxSteps     = 2000      // step records, and as many skip records: the newest are kept
	countEvery   = 200       // step records are written before they are counted again
	collectEvery = time.Hour // as often as Collect does anything
)

// Collect forgets ids whose layers are gone, and the weak keys that were used longest ago if there are more than maxKeys. It does so at most
// once an hour; in between it costs one stat.
func (s *Store) Collect(maxKeys int) error {
	stamp := filepath.Join(s.dir, "collected")
	if info, err := os.Stat(stamp); err == nil && time.Since(info.ModTime()).Abs() < collectEvery {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := errors.Join(s.collectKeys(maxKeys), keepNewest(filepath.Join(s.dir, "steps"), maxSteps),
		keepNewest(filepath.Join(s.dir, "skips"), maxSteps), removeTemporary(s.dir), atomicfile.Write(stamp, nil, 0o600))
	if err != nil {
		return fmt.Errorf("collect traces: %w", err)
	}
	return nil
}

func (s *Store) collectKeys(maxKeys int) error {
	dir := filepath.Join(s.dir, "weak")
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		exists := func(id string) bool {
			_, err := os.Lstat(s.tracePath(id))
			return !errors.Is(err, os.ErrNotExist)
		}
		// A file keeps the ids that are gone if there are others: Lookup finds out, and writing it would make an old key look new.
		if !slices.ContainsFunc(readIDs(path), exists) {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return keepNewest(dir, maxKeys)
}

// keepNewest removes the files of a directory that were written first, until a number is left.
func keepNewest(dir string, keep int) error {
	files, err := os.ReadDir(dir)
	if err != nil || len(files) <= keep {
		return err
	}
	type dated struct {
		name string
		time time.Time
	}
	all := make([]dated, 0, len(files))
	for _, f := range files {
		if info, err := f.Info(); err == nil {
			all = append(all, dated{f.Name(), info.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b dated) int {
		return cmp.Or(b.time.Compare(a.time), strings.Compare(a.name, b.name))
	})
	for _, f := range all[min(max(keep, 0), len(all)):] {
		if err := os.RemoveAll(filepath.Join(dir, f.name)); err != nil {
			return err
		}
	}
	return nil
}

// removeTemporary removes what a killed process was writing.
func removeTemporary(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, "*", atomicfile.Temporary+"*"))
	if err != nil {
		return err
	}
	top, err := filepath.Glob(filepath.Join(dir, atomicfile.Temporary+"*"))
	for _, path := range append(left, top...) {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}
