package profiler

import (
	"cmp"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"syscall"
	"unicode/utf8"

	"github.com/optbuild/optbuild/builder/profile"
	"github.com/optbuild/optbuild/builder/trace"
	"github.com/optbuild/optbuild/builder/trace/view/viewer"
)

// filesOf returns the names that were seen and that are files of the image, in their order. dirs and seen are of the layers, the topmost first; stop is a name whose place ends
// what counts.
//
// overlayfs asks each layer for a name, from the top, until one has it, and for a directory all of them: so a name that several views have seen is a directory, and the topmost
// layer's is the one whose owner and mode count. A whiteout ends the search; it is no file.
func filesOf(dirs []viewer.Directory, seen [][]trace.Seen, stop string) ([]profile.File, error) {
	last := uint32(math.MaxUint32)
	for _, layer := range seen {
		for _, s := range layer {
			if s.Path == stop {
				last = min(last, s.Order)
			}
		}
	}
	type ordered struct {
		profile.File
		order uint32
	}
	var all []ordered
	met := map[string]bool{}
	for i, layer := range seen {
		root, err := os.OpenRoot(dirs[i].Path)
		if err != nil {
			return nil, fmt.Errorf("open layer: %w", err)
		}
		defer root.Close()
		for _, s := range layer {
			if s.What&trace.Absent != 0 || s.Order > last || s.Path == "." || !utf8.ValidString(s.Path) || met[s.Path] {
				continue
			}
			info, err := root.Lstat(s.Path)
			if err != nil {
				return nil, fmt.Errorf("look at what was read: %w", err)
			}
			if whiteout(info) {
				continue
			}
			met[s.Path] = true
			f := profile.File{Path: "/" + s.Path, Type: typeOf(info), Read: s.What&trace.Read != 0, Layer: len(dirs) - 1 - i}
			if f.Type == profile.Regular {
				f.Bytes = info.Size()
			}
			all = append(all, ordered{f, s.Order})
		}
	}
	slices.SortFunc(all, func(a, b ordered) int { return cmp.Compare(a.order, b.order) })
	files := make([]profile.File, len(all))
	for i, f := range all {
		files[i] = f.File
	}
	return files[:min(len(files), profile.MaxFiles)], nil
}

func whiteout(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode()&fs.ModeCharDevice != 0 && st.Rdev == 0
}

func typeOf(info fs.FileInfo) profile.Type {
	switch {
	case info.Mode().IsRegular():
		return profile.Regular
	case info.IsDir():
		return profile.Directory
	case info.Mode()&fs.ModeSymlink != 0:
		return profile.Symlink
	}
	return profile.Other
}
