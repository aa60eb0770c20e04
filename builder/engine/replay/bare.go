package replay

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/builder/trace"
	"github.com/optbuild/optbuild/snapshot"
)

// Bare directories are those that overlayfs has copied up, and that are as they are below: /tmp after a file that was made there and removed, /etc below what BuildKit mounts. They are not in the blob
// of a layer, so that the directory of a layer that was fetched has none. For what a step has looked at there to be the same, those of one that ran here have none either.
//
// Nobody can see that, unless the directory's time is another one (it is not in the image): such a directory stays, but for those in which it says nothing.

// timeless are directories in which whatever runs makes and removes files, or BuildKit does: that their time is that of the run says nothing.
var timeless = []string{"dev", "etc", "proc", "root", "run", "sys", "tmp", "var/tmp"}

// mostBare is how many names are looked through: no more are in a layer of which anybody looks at parts.
var mostBare = 2 * fewFiles.Entries

// dropBare removes the bare directories of a layer that is mounted nowhere, of a run between two times. below are those that it lies on, the topmost first.
func dropBare(layer string, below []snapshot.Directory, begun, ended time.Time) error {
	b := bare{layer: layer, below: below, begun: begun, ended: ended, left: mostBare}
	_, err := b.drop(".")
	return err
}

type bare struct {
	layer string
	below []snapshot.Directory
	begun time.Time
	ended time.Time
	left  int
}

// drop removes what is bare below a directory. It is true if nothing is left in it.
func (b *bare) drop(dir string) (empty bool, err error) {
	full := filepath.Join(b.layer, dir)
	entries, err := os.ReadDir(full)
	if err != nil {
		return false, err
	}
	if b.left -= len(entries); b.left < 0 {
		return false, nil
	}
	fi, err := os.Lstat(full)
	if err != nil {
		return false, err
	}
	left := len(entries)
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		name := path.Join(dir, e.Name())
		if empty, err := b.drop(name); err != nil || !empty {
			if err != nil {
				return false, err
			}
			continue
		}
		if same, err := b.unchanged(name); err != nil || !same {
			if err != nil {
				return false, err
			}
			continue
		}
		if err := os.Remove(filepath.Join(b.layer, name)); err != nil {
			return false, err
		}
		left--
	}
	if left < len(entries) { // which is no change that anybody has made
		err = os.Chtimes(full, time.Time{}, fi.ModTime())
	}
	return left == 0, err
}

// unchanged is true of a directory that is what is seen at its place without it. In doubt it is not.
func (b *bare) unchanged(name string) (bool, error) {
	own, hides, err := find(b.layer, name)
	if err != nil || hides || own == nil {
		return false, err
	}
	for _, l := range b.below {
		found, hidden, err := find(l.Path, name)
		if err != nil || hidden {
			return false, err
		}
		if found == nil {
			continue
		}
		if found.Mode != own.Mode || found.UID != own.UID || found.GID != own.GID {
			return false, nil
		}
		return b.sameTime(name, l.Path)
	}
	return false, nil
}

func (b *bare) sameTime(name, layer string) (bool, error) {
	own, err := os.Lstat(filepath.Join(b.layer, name))
	if err != nil {
		return false, err
	}
	if at := own.ModTime(); slices.Contains(timeless, name) && !at.Before(b.begun) && !at.After(b.ended) {
		return true, nil
	}
	below, err := os.Lstat(filepath.Join(layer, name))
	return err == nil && own.ModTime().Equal(below.ModTime()), err
}

// find looks for a directory in a layer. It is hidden if what is there, or above it, is no plain directory: what lies below may not be seen.
func find(layer, name string) (found *trace.Entry, hidden bool, err error) {
	at := ""
	for part := range strings.SplitSeq(name, "/") {
		at = path.Join(at, part)
		fi, err := os.Lstat(filepath.Join(layer, at))
		if os.IsNotExist(err) {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, err
		}
		if !fi.IsDir() {
			return nil, true, nil
		}
		if found, err = attributes(layer, at); err != nil {
			return nil, false, err
		}
		if found.Xattrs != (trace.Entry{}).Xattrs {
			return nil, true, nil
		}
	}
	return found, false, nil
}

// attributes are those of a directory in a layer that count for who sees it.
func attributes(layer, name string) (*trace.Entry, error) {
	l, err := trace.Capture(layer, []trace.Seen{{Path: name, What: trace.Looked, Order: 1}})
	if err != nil {
		return nil, err
	}
	for _, e := range l.Entries {
		if e.Path == name && e.Mode&unix.S_IFMT == unix.S_IFDIR {
			return &e, nil
		}
	}
	return nil, fmt.Errorf("%q of layer %s is no directory", name, layer)
}
