package trace

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// Capture makes a layer's observations of what a view has seen: it reads the attributes and digests of those names from the
// layer's directory, which must not have changed since. Directories that a name is in count as looked up, and so does the
// root. It is an error if the directory contradicts what was seen: such a record can't be relied on.
func Capture(root string, seen []Seen) (Layer, error) {
	entries, err := complete(seen)
	if err != nil {
		return Layer{}, fmt.Errorf("read what was seen of layer %s: %w", root, err)
	}
	_, err = each(root, len(entries), func(w *walker, i int) (*Difference, error) {
		if err := w.capture(&entries[i]); err != nil {
			return nil, fmt.Errorf("read %q of layer %s: %w", entries[i].Path, root, err)
		}
		entries[i].Listing = withoutClocks(entries[i].Path, entries[i].Listing)
		return nil, nil
	})
	if err != nil {
		return Layer{}, err
	}
	return Layer{Entries: entries}, nil
}

// CountTimes adds the times of what is no regular file in those layers of a run, by their index, that a step left and not the context: there they say when that step ran. roots are the layers'
// directories. Of directories those count that were asked for for their own sake, as far as can be told: nothing that there was, in whatever layer, was asked for in them. So make asks for a directory
// that something depends on, and a shell for `[ dist -nt modules ]`.
func CountTimes(layers []Layer, roots []string, results map[int]bool) error {
	found := map[string]bool{}
	for _, l := range layers {
		for _, e := range l.Entries {
			if e.What&Absent == 0 {
				found[e.Path] = true
			}
		}
	}
	for i, l := range layers {
		if !results[i] {
			continue
		}
		way := map[string]bool{} // directories on the way to something
		for _, e := range l.Entries {
			if e.Path != "." && found[e.Path] {
				way[parent(e.Path)] = true
			}
		}
		_, err := each(roots[i], len(l.Entries), func(w *walker, k int) (*Difference, error) {
			e := &l.Entries[k]
			if e.What&Absent != 0 || e.kind() == unix.S_IFREG || e.kind() == unix.S_IFDIR && (way[e.Path] || hasClocks(e.Path)) {
				return nil, nil
			}
			st, there, err := w.stat(e.Path)
			if err == nil && !there {
				err = errContradiction
			}
			if err != nil {
				return nil, fmt.Errorf("read the time of %q of layer %s: %w", e.Path, roots[i], err)
			}
			e.setTime(&st)
			return nil, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// setTime sets the time that counts of what is no regular file. Zero stands for none, and is taken by nobody else.
func (e *Entry) setTime(st *unix.Stat_t) {
	if e.Modified = st.Mtim.Nano(); e.Modified == 0 {
		e.Modified = 1
	}
}

// timed is true of what has a time that counts.
func (e *Entry) timed() bool { return e.kind() == unix.S_IFREG || e.Modified != 0 }

// complete makes entries of what was seen, sorted, each path once, with the directories on the way.
func complete(seen []Seen) ([]Entry, error) {
	byPath := make(map[string]Entry, len(seen)+1)
	for _, s := range seen {
		if !validPath(s.Path) {
			return nil, fmt.Errorf("%q is no path in a layer", s.Path)
		}
		if s.What == 0 || s.What&^allWhat != 0 {
			return nil, fmt.Errorf("%q was seen, but not how: %#x", s.Path, uint8(s.What))
		}
		add(byPath, s.Path, s.What, s.Order)
		if s.What&Absent == 0 {
			add(byPath, s.Path, Looked, s.Order)
		}
	}
	for _, s := range seen {
		for path := s.Path; path != "."; {
			path = parent(path)
			if e, ok := byPath[path]; ok && path != "." && e.Order <= s.Order {
				break
			}
			add(byPath, path, Looked, s.Order)
		}
	}
	add(byPath, ".", Looked, 1)
	for path, e := range byPath {
		if e.What&Absent != 0 && e.What != Absent {
			return nil, fmt.Errorf("%q was seen both absent and there", path)
		}
	}
	return slices.SortedFunc(maps.Values(byPath), func(a, b Entry) int { return ComparePaths(a.Path, b.Path) }), nil
}

func add(to map[string]Entry, path string, what What, order uint32) {
	e, ok := to[path]
	if !ok {
		e = Entry{Path: path, Order: order}
	}
	e.What |= what
	e.Order = min(e.Order, order)
	to[path] = e
}

var errContradiction = errors.New("what was seen is not what is there")

// capture fills in what an entry is like.
func (w *walker) capture(e *Entry) error {
	st, there, err := w.stat(e.Path)
	if err != nil {
		return err
	}
	if there != (e.What&Absent == 0) {
		return fmt.Errorf("%w: seen as %s", errContradiction, e.What)
	}
	if !there {
		return nil
	}
	e.attributes(&st)
	if e.What&Listed != 0 && e.kind() != unix.S_IFDIR {
		return fmt.Errorf("%w: seen as %s, mode %o", errContradiction, e.What, st.Mode)
	}
	fd := -1
	switch e.kind() {
	case unix.S_IFREG, unix.S_IFDIR:
		if fd, err = w.open(e.Path); err != nil {
			return err
		}
		defer unix.Close(fd)
	case unix.S_IFLNK:
		if e.Content, err = w.link(e.Path); err != nil {
			return err
		}
	}
	if e.Xattrs, err = w.xattrsOf(e.Path, fd); err != nil {
		return err
	}
	if e.kind() == unix.S_IFREG {
		size := e.Size
		if e.Content, e.Size, err = w.content(fd, size); err != nil {
			return err
		}
		if size != e.Size {
			return fmt.Errorf("%w: the file is being written", errContradiction)
		}
	}
	if e.What&Listed != 0 {
		e.Listing, err = w.list(fd)
	}
	return err
}

// attributes sets those of an entry that stat tells and that count: not the size, time or link count of a directory.
func (e *Entry) attributes(st *unix.Stat_t) {
	e.Mode, e.UID, e.GID = st.Mode, st.Uid, st.Gid
	switch e.kind() {
	case unix.S_IFREG:
		e.Size, e.Modified = st.Size, st.Mtim.Nano()
	case unix.S_IFCHR, unix.S_IFBLK:
		e.Rdev = uint64(st.Rdev)
	}
}

// kind returns the type of what is there, one of S_IFREG and its like.
func (e *Entry) kind() uint32 { return e.Mode & unix.S_IFMT }
