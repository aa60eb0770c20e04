package trace

import "strings"

// What says in bits what was asked about a name.
type What uint8

const (
	Absent What = 1 << iota // it was looked up, and was not there
	Looked                  // it was looked up, and was there
	Read                    // a file: it was opened
	Listed                  // a directory: its names were listed
	Xattrs                  // its extended attributes were asked for (they count for each name that is there, asked for or not)
)

const allWhat = Absent | Looked | Read | Listed | Xattrs

// Seen is what a view noticed about one name below the root of a layer.
type Seen struct {
	Path  string // slash-separated, relative to the layer's root; "." is the root itself
	What  What   // never zero
	Order uint32 // when it was first touched, from 1; unique in one run, across all its layers
}

func (w What) String() string {
	var words []string
	for i, name := range []string{"absent", "looked", "read", "listed", "xattrs"} {
		if w&(1<<i) != 0 {
			words = append(words, name)
		}
	}
	return strings.Join(words, "|")
}
