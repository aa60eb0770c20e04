// Package trace says what a step of a build saw of the files that were copied into it, and whether it would see the same again.
//
// A step (a RUN) gets its files from layers, directories that overlayfs puts over one another. Some of them are watched: they
// are shown to the step through a view (package view), which notes every name that the kernel asks about. From the names that
// were noted, Capture makes a Layer: for each name its attributes and digests, read from the layer's directory itself. The
// Layers of one run, with the weak key under which it ran, are its Trace. It is kept beside what the step made (package store).
//
//	run:     view ──Seen──> Capture(directory) ──Layer──> Trace ──Encode──> shared/<id>/trace
//	rebuild: Decode ──Trace──> Check(today's directories) ──> nil: what the step made then is what it would make now
//	                                                     └──> *Difference: the reason why it runs again
//
// A deterministic step that gets the same answers asks the same questions, so it is enough to ask those that it asked then.
// README.md has the argument, what is compared and what is not; FORMAT.md has the bytes of a stored trace.
//
// Everything fails closed. A name that can't be read, a record that contradicts the directory, a trace that was damaged: all of
// them are errors or differences, and the step runs.
//
// The package knows nothing of BuildKit, of snapshots, of FUSE, or of where a layer's directory comes from.
package trace

import "time"

// Layer is what a run observed of one watched layer.
type Layer struct {
	Entries []Entry // in the order of ComparePaths, each path once; the root is among them
}

// Entry is one name that a run asked about, and what it was like. Of an absent name only Path, What and Order are set.
type Entry struct {
	Path  string // as in Seen
	What  What
	Order uint32 // as in Seen

	Mode     uint32   // st_mode, with the type
	UID, GID uint32   // as this process sees them: in a user namespace those of that namespace
	Size     int64    // bytes; regular files only
	Modified int64    // time of modification in nanoseconds since 1970, of regular files, and of all else whose time counts (see CountTimes), else 0: for the order of time, see Check
	Rdev     uint64   // device nodes only; 0 in a whiteout
	Content  [32]byte // SHA-256 of a regular file's content, or of a symbolic link's target
	Listing  []Name   // a listed directory's names, sorted; nil if there are none
	Xattrs   [32]byte // digest of the extended attributes that count; zero if there are none
}

// Name is one line of a directory's listing.
type Name struct {
	Name string
	Type uint8 // as in struct dirent: st_mode >> 12, or TypeWhiteout
}

// TypeWhiteout is the type of a whiteout in a listing (a character device 0:0, which for a directory's reader is one like any
// other, and for overlayfs the mark of a name that is deleted).
const TypeWhiteout = 14

// Trace is what is kept of one run.
type Trace struct {
	Weak    [32]byte  // the weak key under which it ran
	Layer   string    // id of the stored layer that it made: 32 hexadecimal digits in lower case
	Started time.Time // of the step itself
	Ended   time.Time
	Layers  []Layer           // what it observed of the watched layers, topmost first
	Notes   map[string]string // small facts, such as the step's name
}
