package trace

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Check asks a layer's directory what the run asked, and returns the first answer that differs, or nil if all hold. Whatever can't be
// answered is an error. started is when the run began whose results are to be used again; if it is zero, every time counts as later.
//
// Attributes of all names come first, then the order of time, and content, listings and extended attributes last, each in the order of
// the paths, so that what is cheap to find is found before anything is read.
func (l Layer) Check(root string, started time.Time) (*Difference, error) {
	var times []moment
	d, err := l.check(root, started, &times)
	if d != nil || err != nil {
		return d, err
	}
	return nil, nil
}

// Check does the same with all of a trace's layers, whose directories are given topmost first. The order of time holds across
// them.
func (t *Trace) Check(roots []string) (*Difference, error) { return t.CheckExcept(roots, nil) }

// CheckExcept is Check where some layers, by their index, are known to be the very ones that the run had below it: they are what
// they were, and nobody looks at their directories.
func (t *Trace) CheckExcept(roots []string, same map[int]bool) (*Difference, error) {
	if len(roots) != len(t.Layers) {
		return nil, fmt.Errorf("compare %d layers with %d directories", len(t.Layers), len(roots))
	}
	var times []moment
	for i, l := range t.Layers {
		before := len(times)
		var d *Difference
		var err error
		if same[i] {
			times = append(times, l.unchanged()...)
		} else {
			d, err = l.check(roots[i], t.Started, &times)
		}
		if d != nil {
			d.Layer = i
		}
		if d != nil || err != nil {
			return d, err
		}
		for j := before; j < len(times); j++ {
			times[j].layer = i
		}
	}
	return orderOfTime(times), nil
}

// unchanged are the times of a layer that is what it was.
func (l Layer) unchanged() (times []moment) {
	for _, e := range l.Entries {
		times = append(times, moment{path: e.Path, was: e.Modified, is: e.Modified, counts: e.timed()})
	}
	return times
}

// Dated is the layer with the times that its files have in a directory where all of its observations hold.
func (l Layer) Dated(root string) (Layer, error) {
	dated := Layer{slices.Clone(l.Entries)}
	_, err := each(root, len(dated.Entries), func(w *walker, i int) (*Difference, error) {
		e := &dated.Entries[i]
		if !e.timed() {
			return nil, nil
		}
		st, there, err := w.stat(e.Path)
		if err == nil && !there {
			err = unix.ENOENT
		}
		if err != nil {
			return nil, fmt.Errorf("read the time of %q of layer %s: %w", e.Path, root, err)
		}
		if e.kind() == unix.S_IFREG {
			e.Modified = st.Mtim.Nano()
		} else {
			e.setTime(&st)
		}
		return nil, nil
	})
	return dated, err
}

// check is Check, and adds the times of the files to those of other layers.
func (l Layer) check(root string, started time.Time, times *[]moment) (*Difference, error) {
	since := int64(math.MinInt64)
	if !started.IsZero() {
		since = started.UnixNano()
	}
	mine := make([]moment, len(l.Entries))
	wrap := func(d *Difference, err error, path string) (*Difference, error) {
		if err != nil {
			return nil, fmt.Errorf("check %q of layer %s: %w", path, root, err)
		}
		return d, nil
	}
	d, err := each(root, len(l.Entries), func(w *walker, i int) (*Difference, error) {
		d, is, err := w.checkAttributes(&l.Entries[i], since)
		mine[i] = moment{path: l.Entries[i].Path, was: l.Entries[i].Modified, is: is, counts: l.Entries[i].timed()}
		return wrap(d, err, l.Entries[i].Path)
	})
	if d != nil || err != nil {
		return d, err
	}
	if d := orderOfTime(mine); d != nil {
		return d, nil
	}
	*times = append(*times, mine...)
	return each(root, len(l.Entries), func(w *walker, i int) (*Difference, error) {
		d, err := w.checkContent(&l.Entries[i])
		return wrap(d, err, l.Entries[i].Path)
	})
}

// checkAttributes compares what stat tells, and returns the time of modification.
func (w *walker) checkAttributes(e *Entry, since int64) (*Difference, int64, error) {
	st, there, err := w.stat(e.Path)
	if err != nil {
		return nil, 0, err
	}
	absent := e.What&Absent != 0
	switch {
	case absent && there:
		return &Difference{Path: e.Path, Kind: Appeared}, 0, nil
	case absent:
		return nil, 0, nil
	case !there:
		return &Difference{Path: e.Path, Kind: Vanished}, 0, nil
	}
	var is Entry
	is.attributes(&st)
	if is.kind() != unix.S_IFREG && is.kind() == e.kind() && e.timed() {
		is.setTime(&st)
	}
	var d Difference
	switch {
	case is.kind() != e.kind():
		d.Kind, d.Was, d.Is = TypeChanged, typeName(e.Mode, e.Rdev), typeName(is.Mode, is.Rdev)
	case is.Rdev != e.Rdev:
		d.Kind, d.Was, d.Is = DeviceChanged, deviceText(e.Rdev), deviceText(is.Rdev)
	case is.Size != e.Size:
		d.Kind = ContentChanged
	case is.Mode != e.Mode:
		d.Kind, d.Was, d.Is = ModeChanged, modeText(e.Mode), modeText(is.Mode)
	case is.UID != e.UID || is.GID != e.GID:
		d.Kind, d.Was, d.Is = OwnerChanged, ownerText(e.UID, e.GID), ownerText(is.UID, is.GID)
	case is.Modified != e.Modified && (is.Modified > since || e.Modified > since):
		d.Kind = BecameNewer
		if other, err := w.checkContent(e); other != nil || err != nil { // what people have to know
			return other, is.Modified, err
		}
	default:
		return nil, is.Modified, nil
	}
	d.Path = e.Path
	found := d // which is rare, and allocated only then
	return &found, is.Modified, nil
}

// checkContent compares what has to be read: the attributes are known to be equal.
func (w *walker) checkContent(e *Entry) (*Difference, error) {
	if e.What&Absent != 0 {
		return nil, nil
	}
	fd := -1
	var err error
	switch e.kind() {
	case unix.S_IFREG, unix.S_IFDIR:
		if fd, err = w.open(e.Path); err != nil {
			return nil, err
		}
		defer unix.Close(fd)
	case unix.S_IFLNK:
		content, err := w.link(e.Path)
		if err != nil {
			return nil, err
		}
		if content != e.Content {
			return &Difference{Path: e.Path, Kind: ContentChanged}, nil
		}
	}
	if e.kind() == unix.S_IFREG {
		content, size, err := w.content(fd, e.Size)
		if err != nil {
			return nil, err
		}
		if size != e.Size || content != e.Content {
			return &Difference{Path: e.Path, Kind: ContentChanged}, nil
		}
	}
	xattrs, err := w.xattrsOf(e.Path, fd)
	if err != nil {
		return nil, err
	}
	if xattrs != e.Xattrs {
		return &Difference{Path: e.Path, Kind: XattrsChanged}, nil
	}
	if e.What&Listed != 0 {
		names, err := w.list(fd)
		if err != nil {
			return nil, err
		}
		return compareListing(e.Path, e.Listing, withoutClocks(e.Path, names)), nil
	}
	return nil, nil
}

// compareListing returns the first name in which two sorted listings differ.
func compareListing(path string, was, is []Name) *Difference {
	for i := 0; ; i++ {
		order := 0
		switch {
		case i >= len(was) && i >= len(is):
			return nil
		case i >= len(was):
			order = 1
		case i >= len(is):
			order = -1
		default:
			order = strings.Compare(was[i].Name, is[i].Name)
		}
		if order == 0 && was[i].Type == is[i].Type {
			continue
		}
		d := &Difference{Path: path, Kind: ListingChanged}
		switch {
		case order > 0:
			d.Name, d.Is = is[i].Name, entryName(is[i].Type)
		case order < 0:
			d.Name, d.Was = was[i].Name, entryName(was[i].Type)
		default:
			d.Name, d.Was, d.Is = was[i].Name, entryName(was[i].Type), entryName(is[i].Type)
		}
		return d
	}
}
