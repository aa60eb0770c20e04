package trace

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Kind is in what way a name differs from what it was.
type Kind uint8

const (
	ContentChanged Kind = iota + 1 // a file's content, or a symbolic link's target
	ModeChanged                    // the permission bits
	OwnerChanged
	TypeChanged    // a file is a directory now, and the like
	DeviceChanged  // a device node's number
	Appeared       // it was absent
	Vanished       // it was there
	ListingChanged // a listed directory has other names, or names of other types
	XattrsChanged  // the extended attributes
	BecameNewer    // a file's time changed, and lies after the start of the run that had the file as its input, or did
	OrderChanged   // one of two files was older, and is not any more
)

// Difference is the first thing found that a step would see otherwise than it did.
type Difference struct {
	Layer int    // which of a trace's layers, from 0; set by Trace.Check
	Path  string // as in Entry
	Kind  Kind
	Was   string // ModeChanged, OwnerChanged, TypeChanged, DeviceChanged, ListingChanged: what it was, for people
	Is    string // and what it is
	Name  string // ListingChanged: the first name that was added, removed or has another type; OrderChanged: the path of the other file
}

// String returns the difference as users read it: "package-lock.json changed". The root of the layers is "/".
func (d *Difference) String() string {
	return d.Text(func(path string) string {
		if path == "." {
			return "/"
		}
		return path
	})
}

// Text is String with other names for paths, such as those relative to the step's working directory. Names that would not
// print are quoted after that.
func (d *Difference) Text(show func(path string) string) string {
	path := printable(show(d.Path))
	switch d.Kind {
	case ContentChanged:
		return path + " changed"
	case ModeChanged:
		return fmt.Sprintf("%s: mode %s -> %s", path, d.Was, d.Is)
	case OwnerChanged:
		return fmt.Sprintf("%s: owner %s -> %s", path, d.Was, d.Is)
	case TypeChanged:
		return fmt.Sprintf("%s was %s and is %s now", path, d.Was, d.Is)
	case DeviceChanged:
		return fmt.Sprintf("%s: device %s -> %s", path, d.Was, d.Is)
	case Appeared:
		return path + " is there now"
	case Vanished:
		return path + " is gone"
	case ListingChanged:
		name := printable(d.Name)
		switch {
		case d.Was == "":
			return fmt.Sprintf("%s was listed and has a new entry: %s", path, name)
		case d.Is == "":
			return fmt.Sprintf("%s was listed and lacks an entry: %s", path, name)
		}
		return fmt.Sprintf("%s was listed and has an entry of another type: %s was %s and is %s now", path, name, d.Was, d.Is)
	case BecameNewer:
		return path + " is newer than what was made from it"
	case OrderChanged:
		return fmt.Sprintf("%s and %s are in another order of time", path, printable(show(d.Name)))
	case XattrsChanged:
		return path + ": extended attributes changed"
	}
	return fmt.Sprintf("%s: difference of kind %d", path, d.Kind)
}

// printable quotes a name that would not print as it is.
func printable(name string) string {
	odd := func(r rune) bool { return !unicode.IsPrint(r) }
	if name == "" || !utf8.ValidString(name) || strings.ContainsFunc(name, odd) {
		return strconv.Quote(name)
	}
	return name
}

// typeName returns what people call a type of st_mode.
func typeName(mode uint32, rdev uint64) string {
	if mode&unix.S_IFMT == unix.S_IFCHR && rdev == 0 {
		return entryName(TypeWhiteout)
	}
	return entryName(uint8(mode & unix.S_IFMT >> 12))
}

// entryName returns what people call a type of a directory's entry.
func entryName(kind uint8) string {
	switch kind {
	case unix.DT_REG:
		return "a file"
	case unix.DT_DIR:
		return "a directory"
	case unix.DT_LNK:
		return "a symbolic link"
	case unix.DT_CHR, unix.DT_BLK:
		return "a device"
	case unix.DT_FIFO:
		return "a pipe"
	case unix.DT_SOCK:
		return "a socket"
	case TypeWhiteout:
		return "deleted"
	}
	return "of unknown type"
}

func modeText(mode uint32) string { return fmt.Sprintf("%04o", mode&^unix.S_IFMT) }

func ownerText(uid, gid uint32) string { return fmt.Sprintf("%d:%d", uid, gid) }

func deviceText(rdev uint64) string { return fmt.Sprintf("%d:%d", unix.Major(rdev), unix.Minor(rdev)) }
