package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrDamaged is wrapped by the error of a blob that is not what its descriptor says, or that may not be read: asking again does not help.
var ErrDamaged = errors.New("it is damaged")

// slowest is how fast a small blob must come, in bytes a second, after Timing.Read has passed.
const slowest = 32 << 10

// Fetch returns the content of a blob, checked against its digest and size. More than most bytes are refused, before anything is read. What is wrong with the blob itself wraps
// ErrDamaged, or errdefs.ErrNotFound where the registry does not have it.
func (s *Store) Fetch(ctx context.Context, d ocispecs.Descriptor, most int64) ([]byte, error) {
	b, err := s.fetch(ctx, d, most)
	if err != nil {
		return nil, fmt.Errorf("fetch %s from cache %s: %w", clip(string(d.Digest)), s.name(), err)
	}
	return b, nil
}

func (s *Store) fetch(ctx context.Context, d ocispecs.Descriptor, most int64) ([]byte, error) {
	if err := checkBlob(d); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if d.Size > most {
		return nil, fmt.Errorf("%w: it has %d bytes, at most %d may be read", ErrDamaged, d.Size, most)
	}
	ctx, cancel := context.WithTimeout(ctx, s.timing.Read+time.Duration(d.Size/slowest)*time.Second)
	defer cancel()
	for attempt := 1; ; attempt++ {
		b, err := s.fetchOnce(ctx, d)
		// Hosts repeat requests, but not what breaks off in the middle, and what has been altered on the way may come right the next time.
		var broken *brokenOff
		if err == nil || attempt == maxFetches || ctx.Err() != nil || !errors.As(err, &broken) && !errors.Is(err, ErrDamaged) {
			return b, err
		}
	}
}

const maxFetches = 3

// brokenOff is an error of an answer that had begun.
type brokenOff struct{ error }

func (b *brokenOff) Unwrap() error { return b.error }

func (s *Store) fetchOnce(ctx context.Context, d ocispecs.Descriptor) ([]byte, error) {
	r, err := s.open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, d.Size+1))
	if err != nil {
		return nil, &brokenOff{err}
	}
	if int64(len(b)) != d.Size {
		return nil, fmt.Errorf("%w: it has not %d bytes", ErrDamaged, d.Size)
	}
	if digest.FromBytes(b) != d.Digest {
		return nil, fmt.Errorf("%w: what came has another digest", ErrDamaged)
	}
	return b, nil
}

// open begins to read a blob. What comes is not checked.
func (s *Store) open(ctx context.Context, d ocispecs.Descriptor) (io.ReadCloser, error) {
	f, err := s.resolver().Fetcher(ctx, s.repo.Name())
	if err != nil {
		return nil, err
	}
	return f.Fetch(ctx, ocispecs.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}) // never its URLs
}

func (s *Store) resolver() remotes.Resolver {
	return docker.NewResolver(docker.ResolverOptions{Hosts: s.hosts, Tracker: docker.NewInMemoryTracker()})
}

// Provider reads blobs where they are. Parts that are asked for by offset are fetched by requests for ranges. What comes is **not** checked, parts of a blob can't be:
// whoever reads a blob whole compares the digest, as containerd's content store does when it commits.
func (s *Store) Provider() content.Provider { return provider{s} }

type provider struct{ s *Store }

// CantRead is in the text of each error of a Provider. Whoever sees a build fail of it, at the other end of a connection that carries texts only, knows that it might not without the cache.
const CantRead = "can't be read from the shared cache"

func (p provider) failed(d ocispecs.Descriptor, err error) error {
	return fmt.Errorf("%s %s %s: %w", clip(string(d.Digest)), CantRead, p.s.name(), err)
}

func (p provider) ReaderAt(ctx context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	if err := checkBlob(d); err != nil {
		return nil, p.failed(d, fmt.Errorf("%w: %w", ErrDamaged, err))
	}
	r, err := p.s.open(ctx, d)
	if err != nil {
		return nil, p.failed(d, err)
	}
	return &readerAt{r: r, size: d.Size, failed: func(err error) error { return p.failed(d, err) }}, nil
}

// readerAt reads in order as long as it is asked in order. Otherwise it seeks, which is a new request.
type readerAt struct {
	size   int64
	failed func(error) error

	mu sync.Mutex
	r  io.ReadCloser
	at int64
}

func (r *readerAt) ReadAt(p []byte, off int64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if off < 0 || off >= r.size {
		return 0, io.EOF
	}
	if off != r.at {
		seeker, ok := r.r.(io.Seeker)
		if !ok {
			return 0, fmt.Errorf("seek in %T: %w", r.r, errors.ErrUnsupported)
		}
		if _, err := seeker.Seek(off, io.SeekStart); err != nil {
			return 0, r.failed(err)
		}
		r.at = off
	}
	short := int64(len(p)) > r.size-off
	if short { // a registry that sends more is not read further
		p = p[:r.size-off]
	}
	n, err := io.ReadFull(r.r, p)
	r.at += int64(n)
	switch {
	case err == nil && short:
		err = io.EOF
	case err != nil:
		err = r.failed(err)
	}
	return n, err
}

func (r *readerAt) Size() int64  { return r.size }
func (r *readerAt) Close() error { return r.r.Close() }

// Push sees to it that the repository has a blob. What it has is not sent. From, which may be nil, is a repository that may have the blob: if it is at the same registry and may be
// read, the blob is taken from there, and not sent either.
func (s *Store) Push(ctx context.Context, d ocispecs.Descriptor, p content.Provider, from reference.Named) error {
	if err := s.push(ctx, d, p, from); err != nil {
		return fmt.Errorf("push %s to cache %s: %w", clip(string(d.Digest)), s.name(), err)
	}
	return nil
}

func (s *Store) push(ctx context.Context, d ocispecs.Descriptor, p content.Provider, from reference.Named) error {
	if err := checkBlob(d); err != nil {
		return err
	}
	d = ocispecs.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
	if from != nil && reference.Domain(from) == reference.Domain(s.repo) && reference.Path(from) != reference.Path(s.repo) {
		host := reference.Domain(s.repo)
		if h, _, err := net.SplitHostPort(host); err == nil { // so containerd looks it up
			host = h
		}
		d.Annotations = map[string]string{labels.LabelDistributionSource + "." + host: reference.Path(from)}
	}
	// containerd's request for an upload that nobody writes to ends only so.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pusher, err := s.resolver().Pusher(ctx, s.repo.Name())
	if err != nil {
		return err
	}
	w, err := pusher.Push(ctx, d)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer w.Close()
	r, err := p.ReaderAt(ctx, d)
	if err != nil {
		return err
	}
	defer r.Close()
	if d.Size == 0 { // containerd's writer waits for the registry's answer only if something was written
		if _, err := w.Write(nil); err != nil {
			return err
		}
	}
	err = content.Copy(ctx, w, content.NewReader(r), d.Size, d.Digest)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// PushBytes sees to it that the repository has a small blob, and returns what it is called.
func (s *Store) PushBytes(ctx context.Context, mediaType string, b []byte) (ocispecs.Descriptor, error) {
	d := ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	return d, s.Push(ctx, d, memory(b), nil)
}

// memory is a provider of one blob.
type memory []byte

func (m memory) ReaderAt(context.Context, ocispecs.Descriptor) (content.ReaderAt, error) {
	return memoryReader{bytes.NewReader(m)}, nil
}

type memoryReader struct{ *bytes.Reader }

func (memoryReader) Close() error { return nil }
