package oracle

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Entry is a path of an image, as a container sees it.
type Entry struct {
	Type     byte // of archive/tar: TypeReg, TypeDir, TypeSymlink, TypeChar, TypeBlock, TypeFifo
	Mode     int64
	UID, GID int
	Xattrs   map[string]string
	// Content is the digest of a regular file's content, Size its length in bytes.
	Content string
	Size    int64
	// Target is that of a symbolic link.
	Target       string
	Major, Minor int64
	// Links are all paths of the file in order, itself included, if it has several; else nil.
	Links []string

	file *int // the same for all hard links of a file
	head string
}

// Tree is the file system of an image, by absolute path. The root is "/".
type Tree map[string]Entry

// layer is the content of a layer: its entries in the order of the archive.
type layer struct {
	id      v1.Hash // of the archive before compression
	members []member
}

type member struct {
	path  string
	entry Entry
	link  string // a hard link's other name, else ""
}

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
	xattr    = "SCHILY.xattr."
)

// readLayer reads a layer's archive.
func readLayer(r io.Reader) (*layer, error) {
	l := &layer{}
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err == io.EOF {
			return l, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read layer: %w", err)
		}
		m := member{path: path.Clean("/" + h.Name), entry: Entry{
			Type: h.Typeflag, Mode: h.Mode & 0o7777, UID: h.Uid, GID: h.Gid, file: new(int),
		}}
		e := &m.entry
		for k, v := range h.PAXRecords {
			if name, ok := strings.CutPrefix(k, xattr); ok {
				if e.Xattrs == nil {
					e.Xattrs = map[string]string{}
				}
				e.Xattrs[name] = v
			}
		}
		switch h.Typeflag {
		case tar.TypeReg:
			sum := sha256.New()
			var head strings.Builder
			if e.Size, err = io.Copy(io.MultiWriter(sum, &limited{&head}), t); err != nil {
				return nil, fmt.Errorf("read layer: %s: %w", m.path, err)
			}
			e.Content, e.head = hex.EncodeToString(sum.Sum(nil)), head.String()
		case tar.TypeLink:
			m.link = path.Clean("/" + h.Linkname)
		case tar.TypeSymlink:
			e.Target = h.Linkname
		case tar.TypeChar, tar.TypeBlock:
			e.Major, e.Minor = h.Devmajor, h.Devminor
		case tar.TypeDir, tar.TypeFifo:
		default:
			return nil, fmt.Errorf("read layer: %s has the unknown type %q", m.path, h.Typeflag)
		}
		l.members = append(l.members, m)
	}
}

// limited takes the beginning of a file's content, for people to look at.
type limited struct{ b *strings.Builder }

const shown = 400 // bytes

func (l *limited) Write(p []byte) (int, error) {
	if n := shown - l.b.Len(); n > 0 {
		l.b.Write(p[:min(n, len(p))])
	}
	return len(p), nil
}

// flatten puts layers on top of each other.
func flatten(layers []*layer) (Tree, error) {
	t := Tree{"/": directory()}
	for _, l := range layers {
		for _, m := range l.members { // what a layer deletes is below it, wherever in its archive it says so
			switch dir, base := path.Split(m.path); {
			case base == opaque:
				t.removeBelow(path.Clean(dir))
			case strings.HasPrefix(base, whiteout):
				t.remove(path.Join(dir, strings.TrimPrefix(base, whiteout)))
			}
		}
		for _, m := range l.members {
			if strings.HasPrefix(path.Base(m.path), whiteout) {
				continue
			}
			e := m.entry
			if m.link != "" {
				other, ok := t[m.link]
				if !ok {
					return nil, fmt.Errorf("%s is a hard link to %s, which is not there", m.path, m.link)
				}
				e = other
			}
			if err := t.put(m.path, e); err != nil {
				return nil, err
			}
		}
	}
	t.group()
	return t, nil
}

func directory() Entry { return Entry{Type: tar.TypeDir, Mode: 0o755, file: new(int)} }

func (t Tree) put(p string, e Entry) error {
	for dir := path.Dir(p); ; dir = path.Dir(dir) {
		parent, ok := t[dir]
		if ok && parent.Type != tar.TypeDir {
			return fmt.Errorf("%s is below %s, which is not a directory", p, dir)
		}
		if ok {
			break
		}
		t[dir] = directory()
	}
	if e.Type != tar.TypeDir {
		t.removeBelow(p)
	}
	t[p] = e
	return nil
}

func (t Tree) remove(p string) {
	t.removeBelow(p)
	delete(t, p)
}

func (t Tree) removeBelow(dir string) {
	if e, ok := t[dir]; !ok || e.Type != tar.TypeDir {
		return
	}
	for p := range t {
		if p != dir && below(p, dir) {
			delete(t, p)
		}
	}
}

// group fills in Links.
func (t Tree) group() {
	names := map[*int][]string{}
	for _, p := range slices.Sorted(maps.Keys(t)) {
		names[t[p].file] = append(names[t[p].file], p)
	}
	for p, e := range t {
		if n := names[e.file]; len(n) > 1 {
			e.Links = n
			t[p] = e
		}
	}
}

// below says that p is dir or below it.
func below(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}
