package export

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/buildkit/cache"

	"github.com/optbuild/optbuild/builder/record"
	"github.com/optbuild/optbuild/snapshot"
)

// Merging RUNs has a price: when the last one runs again, the layer of all of them is a new one to compress, to push and to pull. A RUN runs again alone if it has read files of the
// build context. So such a RUN begins a unit of its own, as it would in a Dockerfile that was written for it, where that costs nothing:
//
//	RUN apt-get update                 ┐
//	RUN apt-get install -y make        ├ one layer
//	RUN npm ci                         ├ one layer: it has read package.json
//	RUN npm run build                  └ one layer: it has read src
//
// Layers stay together that are small, or of which the later one changes or deletes what the earlier one made (a chown, a purge of what was installed to build with), or has a link to
// what would be left out of it (links.go).
// All of it can be seen in the layers: the same layers are divided in the same way, whatever was built before.

// minDivided is for how many bytes a unit is divided: so many must be in the layers below, and fewer of those be hidden by the ones above.
const minDivided = 1 << 20

// divide divides a unit of adjacent RUNs. It mounts nothing if the very same records were divided before.
func (j *job) divide(ctx context.Context, u unit) ([]unit, error) {
	if u.first == u.last {
		return []unit{u}, nil
	}
	k := j.exactKey(u)
	k.add("divided", fmt.Sprint(minDivided))
	if o, ok := index(j.Dir).get(k); ok && u.fits(o.Units) {
		return u.cut(o.Units), nil
	}
	un, _, release, err := j.union(ctx, u)
	if err != nil {
		return nil, err
	}
	defer release()
	sizes, err := un.divide(ctx)
	if err != nil {
		return nil, err
	}
	return u.cut(sizes), index(j.Dir).put(k, outcome{Units: sizes})
}

// contextRead is true if the step that made a layer has read files of the build context, as far as that is known.
func contextRead(ref cache.ImmutableRef, dir string) (bool, error) {
	if ref.GetString(record.ContextRead) != "" {
		return true, nil
	}
	read, err := snapshot.ContextRead(dir)
	if err != nil {
		return false, fmt.Errorf("divide layers: %w", err)
	}
	return read, nil
}

// fits is true if the sizes divide the unit.
func (u unit) fits(sizes []int) bool {
	sum := 0
	for _, n := range sizes {
		if n < 1 || n > len(u.steps) {
			return false
		}
		sum += n
	}
	return sum == len(u.steps)
}

// cut cuts the unit into pieces of so many layers, from the lowest one on.
func (u unit) cut(sizes []int) (units []unit) {
	at := 0
	for _, n := range sizes {
		units = append(units, unit{u.first + at, u.first + at + n - 1, u.steps[at : at+n]})
		at += n
	}
	return units
}

// divide returns how many layers each unit of the members has, the lowest first.
func (u *union) divide(ctx context.Context) (sizes []int, err error) {
	if u.trees != nil { // nothing is known of what steps read
		return []int{u.trees.members()}, nil
	}
	members := slices.Clone(u.members)
	slices.Reverse(members)
	begins := []int{0} // indices of members, at which units begin
	for i := 1; i < len(members); i++ {
		if !members[i].read {
			continue
		}
		sum := measure{ctx: ctx, union: u, enough: minDivided}
		if err := sum.tree("/", members[begins[len(begins)-1]:i]); err != nil && !errors.Is(err, errEnough) {
			return nil, err
		}
		if sum.bytes >= minDivided {
			begins = append(begins, i)
		}
	}
	// A unit of which a later one hides something, or to residue of which it has a link, becomes one with it, and with what is between them.
	for i := 1; i < len(begins); i++ {
		upper := members[begins[i]:]
		if i+1 < len(begins) {
			upper = members[begins[i]:begins[i+1]]
		}
		for below := range i {
			sum := measure{ctx: ctx, union: u, enough: minDivided}
			if err := sum.hidden("/", members[begins[below]:begins[below+1]], upper); err != nil && !errors.Is(err, errEnough) {
				return nil, err
			}
			together := sum.bytes >= minDivided
			if !together {
				if together, err = u.linked(ctx, members[begins[below]:begins[below+1]], upper); err != nil {
					return nil, err
				}
			}
			if together {
				begins = slices.Delete(begins, below+1, i+1)
				i = below
				break
			}
		}
	}
	for i, b := range begins {
		end := len(members)
		if i+1 < len(begins) {
			end = begins[i+1]
		}
		sizes = append(sizes, end-b)
	}
	return sizes, nil
}

// errEnough ends a walk that has found as much as it was to find.
var errEnough = errors.New("enough")

// measure adds up bytes of files that are not residue.
type measure struct {
	ctx    context.Context
	union  *union
	enough int64
	bytes  int64
}

func (s *measure) add(path string, fi os.FileInfo) error {
	if !fi.Mode().IsRegular() || s.union.residue != nil && s.union.residue(path).Rule != "" {
		return nil
	}
	if s.bytes += fi.Size(); s.bytes >= s.enough {
		return errEnough
	}
	return context.Cause(s.ctx)
}

// tree adds what layers, the lowest first, have below a path. What they have twice counts twice.
func (s *measure) tree(path string, layers []directory) error {
	for _, d := range layers {
		top := filepath.Join(d.path, path)
		err := filepath.WalkDir(top, func(file string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			fi, err := e.Info()
			if err != nil {
				return err
			}
			return s.add(filepath.Join(path, file[len(top):]), fi)
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// hidden adds what the upper layers hide, below a path, of the lower ones; all of them the lowest first.
func (s *measure) hidden(path string, lower, upper []directory) error {
	lower, upper = having(lower, path), having(upper, path)
	if len(lower) == 0 {
		return nil
	}
	for _, d := range upper {
		entries, err := os.ReadDir(filepath.Join(d.path, path))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := s.entry(filepath.Join(path, e.Name()), e.IsDir(), d, lower); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *measure) entry(path string, isDir bool, upper directory, lower []directory) error {
	if !isDir {
		return s.tree(path, lower)
	}
	opaque, err := isOpaque(filepath.Join(upper.path, path))
	switch {
	case err != nil:
		return err
	case opaque:
		return s.tree(path, lower)
	}
	return s.hidden(path, lower, []directory{upper})
}

// having are the layers in which the path is a directory.
func having(layers []directory, path string) (list []directory) {
	for _, d := range layers {
		if fi, err := os.Lstat(filepath.Join(d.path, path)); err == nil && fi.IsDir() {
			list = append(list, d)
		}
	}
	return list
}
