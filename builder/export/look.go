package export

import (
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/optbuild/optbuild/builder/export/strip"
)

// looker looks for files in what a union's outcome is known by: all layers but those of which only a part is in its key.
func (u *union) looker() strip.Look {
	l := &looker{in: map[string][]int{}}
	for _, list := range [][]directory{u.members, u.lower} {
		for _, d := range list {
			if !d.projected {
				l.layers = append(l.layers, d)
			}
		}
	}
	for i := range l.layers {
		l.in["/"] = append(l.in["/"], i)
	}
	return l.look
}

type looker struct {
	layers []directory
	in     map[string][]int // of a directory, those layers of which something can be seen in it
}

func (l *looker) look(path string) (head []byte, ok bool) {
	r, err := l.resolve(path)
	if err != nil || r.info == nil {
		return nil, false
	}
	return headOf(r.file)
}

// headOf is the beginning of a file; nothing of a directory.
func headOf(file string) (head []byte, ok bool) {
	fi, err := os.Lstat(file)
	if err != nil || !fi.Mode().IsRegular() {
		return nil, err == nil && fi.IsDir()
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	head = make([]byte, strip.Head)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, false
	}
	return head[:n], true
}

func (l *looker) resolve(path string) (resolved, error) {
	parent := filepath.Dir(path)
	in, known := l.in[parent]
	if !known {
		r, err := l.resolve(parent)
		if err != nil {
			return r, err
		}
		in = r.in
		l.in[parent] = in
	}
	return resolve(l.layers, in, path, nil)
}
