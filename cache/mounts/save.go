package mounts

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// SaveOptions says how a directory is saved. The zero value saves all of it within default limits.
type SaveOptions struct {
	Limits Limits
	// MayGo says of which files, by path, the ones that were modified longest ago may be left out to stay within the limits. Nil: of none, see [Kind].
	MayGo func(path string) bool
	// MaxAge is how long ago a file that may go may have been modified last. 0: however long.
	MaxAge time.Duration
	// Previous is the archive that what is saved refers to, all blobs of which must be where the new one's go. May be nil.
	Previous *Manifest
	// State is what is known of the directory. May be nil.
	State *State
}

// Saved is an archive.
type Saved struct {
	Manifest   *Manifest
	Descriptor ocispecs.Descriptor // of the manifest, whose blob was put like the others, last
	State      *State              // for the next time
	LeftOut    LeftOut
	New        int64 // bytes of new packs' blobs
}

// now is a variable for tests.
var now = time.Now

// Unchanged says whether a directory is as it was when h was made.
func Unchanged(ctx context.Context, dir string, h Head) (bool, error) {
	if (h.Fingerprint == Sum{}) {
		return false, nil
	}
	t, err := walk(ctx, dir)
	if err != nil {
		return false, err
	}
	return h.unchanged(t), nil
}

// Save makes an archive of what is in a directory. An error that wraps [ErrChanged] says that somebody wrote to it meanwhile: nothing was made that anybody should use.
func Save(ctx context.Context, dir string, sink Sink, o SaveOptions) (*Saved, error) {
	begun := now()
	o.Limits = o.Limits.withDefaults()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	t, err := walk(ctx, dir)
	if err != nil {
		return nil, err
	}
	before := t.fingerprint
	known := map[string]Known{}
	if o.State != nil && o.State.Files != nil {
		known = o.State.Files
	}
	s := &Saved{}
	if s.LeftOut, err = t.leaveOut(root, known); err != nil {
		return nil, err
	}
	if err := t.fit(o, &s.LeftOut); err != nil {
		return nil, err
	}
	contents, err := t.digest(ctx, root, known)
	if err != nil {
		return nil, err
	}
	p := newPacker(o.Previous, contents)
	packs, err := p.write(ctx, root, sink)
	if err != nil {
		return nil, err
	}
	after, err := walk(ctx, dir)
	if err != nil {
		return nil, err
	}
	if after.fingerprint != before {
		return nil, fmt.Errorf("%s: %w", dir, ErrChanged)
	}
	s.New = p.written
	s.Manifest = &Manifest{Packs: packs, Entries: t.entries(contents, packs)}
	var blob []byte
	if s.Descriptor, blob, err = s.Manifest.Encode(); err != nil {
		return nil, err
	}
	if int64(len(blob)) > MaxManifest {
		return nil, fmt.Errorf("%w: the list of its files has %d bytes", ErrTooLarge, len(blob))
	}
	if err := sink.Put(ctx, s.Descriptor, blob); err != nil {
		return nil, fmt.Errorf("put manifest: %w", err)
	}
	s.State = t.state(begun, contents)
	s.State.Manifest = s.Descriptor
	if isSettled(t.newest, begun) {
		s.State.Fingerprint = before
	}
	return s, nil
}

// fit leaves out what was modified longest ago until the limits hold.
func (t *tree) fit(o SaveOptions, left *LeftOut) error {
	var bytes int64
	count := 0
	var mayGo []*node
	seen := map[uint64]bool{}
	oldest := now().Add(-o.MaxAge).UnixNano()
	gone := map[*node]bool{}
	for _, n := range t.nodes {
		if n.is(unix.S_IFREG) && n.links == 1 && o.MayGo != nil && o.MayGo(n.path) {
			if o.MaxAge > 0 && n.stat.MTime < oldest {
				gone[n] = true
				continue
			}
			mayGo = append(mayGo, n)
		}
		count++
		if n.is(unix.S_IFREG) && !seen[n.stat.Inode] {
			bytes += n.stat.Size
			seen[n.stat.Inode] = n.links > 1
		}
	}
	slices.SortFunc(mayGo, func(a, b *node) int {
		return cmp.Or(cmp.Compare(a.stat.MTime, b.stat.MTime), compareTree(a.path, b.path))
	})
	for _, n := range mayGo {
		if bytes <= o.Limits.Bytes && count <= o.Limits.Files {
			break
		}
		bytes -= n.stat.Size
		count--
		gone[n] = true
	}
	if bytes > o.Limits.Bytes || count > o.Limits.Files {
		return fmt.Errorf("%w: %d bytes in %d files and directories; allowed are %d in %d", ErrTooLarge, bytes, count, o.Limits.Bytes, o.Limits.Files)
	}
	for n := range gone {
		left.Old++
		left.OldBytes += n.stat.Size
	}
	t.nodes = slices.DeleteFunc(t.nodes, func(n *node) bool { return gone[n] })
	return nil
}

// regular is one file to be saved.
type regular struct {
	*node
	sums []Sum
}

// digest returns the files of the tree, each once however many names it has, in their order. What known tells is believed, the rest is read.
func (t *tree) digest(ctx context.Context, root *os.Root, known map[string]Known) ([]*regular, error) {
	var all []*regular
	seen := map[uint64]bool{}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	bufs := sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}
	for _, n := range t.nodes {
		if !n.is(unix.S_IFREG) || seen[n.stat.Inode] {
			continue
		}
		seen[n.stat.Inode] = n.links > 1
		c := &regular{node: n}
		all = append(all, c)
		if k, ok := known[n.path]; ok && k.Stat == n.stat && len(k.Sums) == len(chunkSizes(n.stat.Size)) {
			c.sums = k.Sums
			continue
		}
		if n.stat.Size == 0 {
			continue
		}
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			buf := bufs.Get().(*[]byte)
			defer bufs.Put(buf)
			return c.read(root, *buf)
		})
	}
	return all, g.Wait()
}

func (c *regular) read(root *os.Root, buf []byte) error {
	f, err := c.open(root)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, size := range chunkSizes(c.stat.Size) {
		h := sha256.New()
		n, err := io.CopyBuffer(onlyWriter{h}, io.LimitReader(onlyReader{f}, size), buf)
		if err != nil {
			return fmt.Errorf("read %s: %w", c.path, err)
		}
		if n != size {
			return fmt.Errorf("%s: %w", c.path, ErrChanged)
		}
		c.sums = append(c.sums, Sum(h.Sum(nil)))
	}
	return nil
}

// These keep io.CopyBuffer from other ways than by its buffer.
type (
	onlyWriter struct{ io.Writer }
	onlyReader struct{ io.Reader }
)

// entries are the manifest's, with chunks where the packs have them.
func (t *tree) entries(contents []*regular, packs []Pack) []Entry {
	index := map[Sum]int{}
	for i, c := range (&Manifest{Packs: packs}).chunks() {
		if _, ok := index[c.Sum]; !ok {
			index[c.Sum] = i
		}
	}
	byPath := make(map[string]*regular, len(contents))
	for _, c := range contents {
		byPath[c.path] = c
	}
	first := map[uint64]string{}
	entries := make([]Entry, 0, len(t.nodes))
	for _, n := range t.nodes {
		e := Entry{Path: name(n.path), UID: n.uid, GID: n.gid, MTime: n.stat.MTime, Xattrs: n.xattrs}
		switch {
		case n.is(unix.S_IFDIR):
			e.Type, e.Mode = Directory, n.mode&modes[Directory]
		case n.is(unix.S_IFLNK):
			e.Type, e.Target = Symlink, name(n.target)
		case n.links > 1 && first[n.stat.Inode] != "":
			e = Entry{Path: name(n.path), Type: HardLink, Target: name(first[n.stat.Inode])}
		default:
			if n.links > 1 {
				first[n.stat.Inode] = n.path
			}
			e.Type, e.Mode = File, n.mode&modes[File]
			for _, sum := range byPath[n.path].sums {
				e.Chunks = append(e.Chunks, index[sum])
			}
		}
		entries = append(entries, e)
	}
	return entries
}

// state is what is known of the tree now. What has changed just before it was read could change again and look the same.
func (t *tree) state(begun time.Time, contents []*regular) *State {
	s := &State{Files: make(map[string]Known, len(contents))}
	for _, c := range contents {
		if isSettled(c.stat.CTime, begun) {
			s.Files[c.path] = Known{c.stat, c.sums, c.xattrs}
		}
	}
	return s
}
