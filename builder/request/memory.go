package request

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// memory is a directory of files that are held in memory, none of them in a subdirectory, by name.
type memory map[string]memoryFile

type memoryFile struct {
	content []byte
	time    int64 // of modification, in nanoseconds
}

// Walk visits the file that target names, or all of them in the order of their names.
func (m memory) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	target = strings.TrimPrefix(path.Clean("/"+target), "/")
	var names []string
	for name := range m {
		if target == "" || target == name {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		f := m[name]
		st := &types.Stat{Path: name, Mode: 0o644, Size: int64(len(f.content)), ModTime: f.time}
		if err := fn(name, &fsutil.DirEntryInfo{Stat: st}, nil); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (m memory) Open(name string) (io.ReadCloser, error) {
	f, ok := m[strings.TrimPrefix(path.Clean("/"+name), "/")]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return io.NopCloser(bytes.NewReader(f.content)), nil
}
