package trace

import (
	"encoding/hex"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	maxLayers  = 1 << 10
	maxEntries = 1 << 20   // of all layers
	maxMemory  = 256 << 20 // bytes that a trace may take in memory, estimated
	maxNotes   = 64 << 10  // bytes
)

const (
	entrySize = 160 // bytes of an Entry, in its slice
	nameSize  = 24  // of a Name
)

// valid says what is wrong with a trace: with anything but these rules, its bytes would not say what it says, or a comparison
// would not ask what the run asked.
func (t *Trace) valid() error {
	if id, err := hex.DecodeString(t.Layer); err != nil || len(id) != 16 || strings.ToLower(t.Layer) != t.Layer {
		return fmt.Errorf("%w: layer %q", ErrInvalid, t.Layer)
	}
	notes := 0
	for name, value := range t.Notes {
		notes += len(name) + len(value) + 2
	}
	if len(t.Layers) > maxLayers || notes > maxNotes {
		return fmt.Errorf("%w: %d layers, %d bytes of notes", ErrTooLarge, len(t.Layers), notes)
	}
	entries, memory := 0, 0
	for _, l := range t.Layers {
		entries += len(l.Entries)
		for i := range l.Entries {
			e := &l.Entries[i]
			if i > 0 && ComparePaths(l.Entries[i-1].Path, e.Path) >= 0 {
				return fmt.Errorf("%w: %q comes after %q", ErrInvalid, e.Path, l.Entries[i-1].Path)
			}
			if wrong := e.wrong(); wrong != "" {
				return fmt.Errorf("%w: %q: %s", ErrInvalid, e.Path, wrong)
			}
			memory += entrySize + len(e.Path)
			for _, n := range e.Listing {
				memory += nameSize + len(n.Name)
			}
		}
	}
	if entries > maxEntries || memory > maxMemory {
		return fmt.Errorf("%w: %d entries", ErrTooLarge, entries)
	}
	return nil
}

// wrong says what is wrong with an entry by itself; "" if nothing is.
func (e *Entry) wrong() string {
	none := [32]byte{}
	there := e.What&Absent == 0
	kind := e.kind()
	device := kind == unix.S_IFCHR || kind == unix.S_IFBLK
	switch {
	case !validPath(e.Path):
		return "no path in a layer"
	case e.What&^allWhat != 0, !there && e.What != Absent, there && e.What&Looked == 0:
		return "seen as " + e.What.String()
	case !there && (e.Mode != 0 || e.UID != 0 || e.GID != 0 || e.Xattrs != none):
		return "absent, with attributes"
	case there && kind == 0:
		return "no type"
	case e.Size < 0, kind != unix.S_IFREG && e.Size != 0, !there && e.Modified != 0:
		return "size or time of what is no file"
	case !device && e.Rdev != 0:
		return "number of what is no device"
	case !e.hasContent() && e.Content != none:
		return "content of what has none"
	case e.What&Listed != 0 && kind != unix.S_IFDIR, e.What&Listed == 0 && len(e.Listing) > 0:
		return "listing of what was not listed"
	}
	for i, n := range e.Listing {
		if !validName(n.Name) || len(n.Name) > maxPath || i > 0 && e.Listing[i-1].Name >= n.Name {
			return fmt.Sprintf("%q in its listing", n.Name)
		}
	}
	return ""
}
