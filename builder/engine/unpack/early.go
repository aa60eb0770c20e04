package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// Early unpacks a layer while it is fetched, into a directory of its own.
//
//	registry ──> content store
//	      └────> the same applier, the same bytes ──> directory aside ──> (the store has accepted the blob) ──> the snapshot's directory
//
// BuildKit fetches a layer, and then unpacks it. What is unpacked early is used only when the store has found that the blob has its digest, and BuildKit compares the digest of what is in it as ever. In all other cases the
// layer is unpacked as ever. It is for the lowest layer of an image, which is most often the largest: what lies on others may refer to their files.
//
// The methods may be called concurrently. The zero value does nothing.
type Early struct {
	// Dir is where directories are made, on the file system of the snapshots.
	Dir string

	mu       sync.Mutex
	expected map[digest.Digest]*expected
}

type expected struct {
	users int
	layer *early // nil: it does not come yet
}

// Expect says that a layer, which is the lowest one of its image, is going to be fetched and unpacked. The caller calls release when that is over.
func (e *Early) Expect(d ocispecs.Descriptor) (release func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.Dir == "" {
		return func() {}
	}
	if e.expected == nil {
		e.expected = map[digest.Digest]*expected{}
	}
	x := e.expected[d.Digest]
	if x == nil {
		x = &expected{}
		e.expected[d.Digest] = x
	}
	x.users++
	return sync.OnceFunc(func() {
		e.mu.Lock()
		x.users--
		last := x.users == 0
		if last {
			delete(e.expected, d.Digest)
		}
		layer := x.layer
		e.mu.Unlock()
		if last && layer != nil {
			layer.drop()
		}
	})
}

// begin returns what unpacks a layer whose first byte is about to come; nil if nobody expects it, or if it came before.
func (e *Early) begin(d ocispecs.Descriptor) *early {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.expected[d.Digest]
	if x == nil || x.layer != nil {
		return nil
	}
	dir, err := os.MkdirTemp(e.Dir, "unpack-")
	if err != nil {
		logrus.WithError(err).Debug("a layer is not unpacked early")
		return nil
	}
	files := filepath.Join(dir, "fs")
	if err := os.Mkdir(files, 0o755); err != nil { // as the snapshotter makes it
		logrus.WithError(errors.Join(err, os.RemoveAll(dir))).Debug("a layer is not unpacked early")
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	l := &early{dir: dir, files: files, in: w, cancel: cancel, come: make(chan struct{}), done: make(chan struct{})}
	x.layer = l
	go l.unpack(ctx, d, r)
	return l
}

// take returns the layer if it was begun; only once.
func (e *Early) take(d digest.Digest) *early {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.expected[d]
	if x == nil || x.layer == nil || x.layer.taken {
		return nil
	}
	x.layer.taken = true
	return x.layer
}

// early is a layer that is unpacked while it comes.
type early struct {
	dir, files string
	in         *io.PipeWriter
	cancel     context.CancelFunc
	taken      bool // guarded by Early.mu

	come    chan struct{} // closed when the blob is in the store, or is not going to be
	done    chan struct{} // closed when all below is set
	applied ocispecs.Descriptor
	err     error

	mu      sync.Mutex // held while the files are put in place
	dropped bool       // the files go, or are gone
}

func (l *early) unpack(ctx context.Context, d ocispecs.Descriptor, r *io.PipeReader) {
	defer close(l.done)
	p := provider{&sequential{r: r, size: d.Size}}
	l.applied, l.err = apply.NewFileSystemApplier(p).Apply(ctx, d, []mount.Mount{{Type: "bind", Source: l.files, Options: []string{"rbind", "rw"}}})
	if l.err == nil {
		_, l.err = io.Copy(io.Discard, r) // until the store has accepted it
	}
	r.CloseWithError(errors.Join(errors.New("it is not unpacked early"), l.err)) // who writes goes on without
}

// accept says whether the store has the blob, with its digest. Only if it has, unpack comes to an end without an error.
func (l *early) accept(err error) {
	l.in.CloseWithError(err)
	close(l.come)
}

func (l *early) drop() {
	l.cancel()
	l.in.CloseWithError(context.Canceled)
	<-l.done
	l.mu.Lock()
	l.dropped = true
	l.mu.Unlock()
	if err := os.RemoveAll(l.dir); err != nil {
		logrus.WithError(err).Debug("what was unpacked early is not removed")
	}
}

// into puts the files where the snapshot's are, an empty directory.
func (l *early) into(ctx context.Context, dir string) (ocispecs.Descriptor, error) {
	select {
	case <-l.done:
	case <-l.come:
	default:
		return ocispecs.Descriptor{}, errors.New("the store had it before it has come")
	}
	select {
	case <-l.done:
	case <-ctx.Done():
		return ocispecs.Descriptor{}, context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return ocispecs.Descriptor{}, l.err
	}
	if l.dropped {
		return ocispecs.Descriptor{}, errors.New("who expected it has ended")
	}
	if err := sameOwner(l.files, dir); err != nil {
		return ocispecs.Descriptor{}, err
	}
	if err := unix.Renameat2(unix.AT_FDCWD, l.files, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE); err != nil {
		return ocispecs.Descriptor{}, &os.LinkError{Op: "exchange", Old: l.files, New: dir, Err: err}
	}
	return l.applied, nil
}

// sameOwner is an error if the directories differ in what is theirs: layers say nothing of it that containerd would heed.
func sameOwner(a, b string) error {
	var x, y unix.Stat_t
	if err := errors.Join(unix.Lstat(a, &x), unix.Lstat(b, &y)); err != nil {
		return err
	}
	if x.Mode != y.Mode || x.Uid != y.Uid || x.Gid != y.Gid {
		return fmt.Errorf("the snapshot's directory is %o %d:%d, and not %o %d:%d", y.Mode, y.Uid, y.Gid, x.Mode, x.Uid, x.Gid)
	}
	return nil
}

// Applier uses what was unpacked early, and has the other applier do the rest. It must be within BuildKit's for Windows, which does something else with layers of that.
func (e *Early) Applier(a diff.Applier) diff.Applier { return applier{a, e} }

type applier struct {
	diff.Applier
	e *Early
}

func (a applier) Apply(ctx context.Context, d ocispecs.Descriptor, mounts []mount.Mount, opts ...diff.ApplyOpt) (ocispecs.Descriptor, error) {
	if dir, ok := emptyDirectory(mounts); ok && len(opts) == 0 {
		if l := a.e.take(d.Digest); l != nil {
			applied, err := l.into(ctx, dir)
			if err == nil {
				return applied, nil
			}
			if ctx.Err() != nil {
				return applied, err
			}
			logrus.WithError(err).Debugf("layer %s is unpacked as ever", d.Digest)
		}
	}
	return a.Applier.Apply(ctx, d, mounts, opts...)
}

// emptyDirectory is the directory of a snapshot without a parent, if there is nothing in it.
func emptyDirectory(mounts []mount.Mount) (string, bool) {
	if len(mounts) != 1 || mounts[0].Type != "bind" || mounts[0].Target != "" {
		return "", false
	}
	entries, err := os.ReadDir(mounts[0].Source)
	return mounts[0].Source, err == nil && len(entries) == 0
}

// Contents sees the layers that come.
func (e *Early) Contents(s content.Store) content.Store { return contents{s, e} }

type contents struct {
	content.Store
	e *Early
}

func (c contents) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	w, err := c.Store.Writer(ctx, opts...)
	if err != nil {
		return nil, err
	}
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, errors.Join(err, w.Close())
		}
	}
	if st, err := w.Status(); err != nil || st.Offset != 0 || o.Desc.Size <= 0 {
		return w, nil // it goes on with what came before
	}
	l := c.e.begin(o.Desc)
	if l == nil {
		return w, nil
	}
	return &writer{Writer: w, l: l}, nil
}

// writer is one that a layer comes through.
type writer struct {
	content.Writer
	l    *early
	over bool // nothing is unpacked early any more, or all of it was
}

func (w *writer) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if !w.over && n > 0 {
		if _, perr := w.l.in.Write(p[:n]); perr != nil {
			w.over = true
		}
	}
	return n, err
}

func (w *writer) Truncate(size int64) error {
	w.end(errors.New("it begins again"))
	return w.Writer.Truncate(size)
}

func (w *writer) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	if expected == "" {
		w.end(errors.New("nobody has compared it"))
	}
	err := w.Writer.Commit(ctx, size, expected, opts...)
	w.end(err)
	return err
}

func (w *writer) Close() error {
	w.end(errors.New("it did not come as a whole"))
	return w.Writer.Close()
}

func (w *writer) end(err error) {
	if !w.over {
		w.over = true
		w.l.accept(err)
	}
}

// provider has one blob, which comes.
type provider struct{ blob *sequential }

func (p provider) ReaderAt(context.Context, ocispecs.Descriptor) (content.ReaderAt, error) {
	return p.blob, nil
}

// sequential is a ReaderAt that is read from the beginning to the end.
type sequential struct {
	r    *io.PipeReader
	at   int64
	size int64
}

func (s *sequential) Size() int64 { return s.size }
func (*sequential) Close() error  { return nil }

func (s *sequential) ReadAt(p []byte, off int64) (int, error) {
	if off != s.at {
		return 0, fmt.Errorf("read at %d of a blob that has come to %d", off, s.at)
	}
	n, err := s.r.Read(p)
	s.at += int64(n)
	return n, err
}
