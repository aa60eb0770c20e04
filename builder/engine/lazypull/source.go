package lazypull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/stargz-snapshotter/cache"
	"github.com/containerd/stargz-snapshotter/fs/config"
	"github.com/containerd/stargz-snapshotter/fs/remote"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/resolver"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// stallWait is for how long a registry may send less than stallBytes. A request is made twice: whoever reads a file from a registry that has gone silent gets his error within ten seconds.
	stallWait   = 4 * time.Second
	stallBytes  = 16 << 10
	requestWait = time.Minute // to find a blob. Reading it takes as long as the link needs
	unit        = 64 << 10    // what the server asks for are multiples of it
)

// errRanges says that a registry sends whole blobs only.
var errRanges = errors.New("the registry does not send parts of it")

// source is a layer's blob at its registry.
type source struct {
	layer
	p *Puller

	whole atomic.Bool // the registry answered with all of the blob

	mu       sync.Mutex
	blob     remote.Blob
	sessions []string // with credentials
}

// source returns what a layer is read from, by the credentials of the sessions, if there are any.
func (p *Puller) source(id string, l layer, sessions []string) *source {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sources[id]
	if s == nil {
		s = &source{layer: l, p: p}
		p.sources[id] = s
	}
	if len(sessions) == 0 {
		sessions = p.sessions
	}
	s.use(sessions)
	return s
}

func (s *source) use(sessions []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(sessions) > 0 && !slices.Equal(s.sessions, sessions) {
		s.sessions = slices.Clone(sessions)
	}
}

// open finds the blob; anew if it was found before.
func (s *source) open(ctx context.Context) (remote.Blob, error) {
	s.mu.Lock()
	sessions := slices.Clone(s.sessions)
	s.mu.Unlock()
	spec, err := reference.Parse(s.Ref)
	if err != nil {
		return nil, err
	}
	hosts := func(reference.Spec) ([]docker.RegistryHost, error) {
		r := resolver.DefaultPool.GetResolver(s.p.o.Hosts, s.Ref, resolver.ScopeType{}, s.p.o.Sessions, session.NewGroup(sessions...))
		list, err := r.HostsFunc(spec.Hostname())
		for i := range list {
			c := http.Client{}
			if list[i].Client != nil {
				c = *list[i].Client
			}
			c.Transport = &watched{c.Transport, s}
			list[i].Client = &c
		}
		return list, err
	}
	b, err := remote.NewResolver(config.BlobConfig{ChunkSize: unit}, nil).
		Resolve(ctx, hosts, spec, ocispecs.Descriptor{Digest: s.Digest}, nothing{})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blob = b
	return b, nil
}

func (s *source) opened(ctx context.Context) (remote.Blob, error) {
	s.mu.Lock()
	b := s.blob
	s.mu.Unlock()
	if b != nil {
		return b, nil
	}
	return s.open(ctx)
}

// size is that of the blob, as the registry says.
func (s *source) size(ctx context.Context) (int64, error) {
	b, err := s.opened(ctx)
	if err != nil {
		return 0, err
	}
	return b.Size(), nil
}

// unfit says why it is no use to read parts of the blob.
func (s *source) unfit() error {
	if s.whole.Load() {
		return errRanges
	}
	return nil
}

// read returns a part of the blob. It tries twice, the second time with what credentials there are then.
func (s *source) read(off, size int64) (p []byte, err error) {
	for again := range 2 {
		p, err = s.readOnce(off, size, again > 0)
		if err == nil {
			return p, nil
		}
	}
	return nil, err
}

func (s *source) readOnce(off, size int64, again bool) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), requestWait)
	find := s.opened
	if again {
		find = s.open
	}
	b, err := find(ctx)
	cancel()
	if err != nil {
		return nil, err
	}
	p := make([]byte, size)
	began := time.Now()
	n, err := b.ReadAt(p, off, remote.WithContext(context.Background())) // without, there is a time limit of the library's
	if err != nil {
		return nil, err
	}
	if int64(n) != size {
		return nil, fmt.Errorf("got %d of %d bytes: %w", n, size, io.ErrUnexpectedEOF)
	}
	s.p.link.note(size, time.Since(began))
	return p, nil
}

// Fetch is what the server calls.
func (p *Puller) Fetch(id string, off, size int64) ([]byte, error) {
	p.mu.Lock()
	s := p.sources[id]
	p.mu.Unlock()
	if s == nil {
		return nil, errors.New("nobody knows the layer")
	}
	return s.read(off, size)
}

// watched is a registry's transport that gives up when nothing comes for a while, and that notes when more comes than was asked for.
type watched struct {
	next http.RoundTripper
	s    *source
}

func (w *watched) RoundTrip(r *http.Request) (*http.Response, error) {
	next := w.next
	if next == nil {
		next = http.DefaultTransport
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	stalled := time.AfterFunc(stallWait, func() { cancel(fmt.Errorf("%s sends next to nothing", r.URL.Host)) })
	resp, err := next.RoundTrip(r.WithContext(ctx))
	if err != nil {
		stalled.Stop()
		if ctx.Err() != nil && r.Context().Err() == nil {
			err = context.Cause(ctx)
		}
		cancel(nil)
		return nil, err
	}
	if r.Method == http.MethodGet && r.Header.Get("Range") != "" && resp.StatusCode == http.StatusOK && resp.ContentLength > unit {
		w.s.whole.Store(true)
		stalled.Stop()
		resp.Body.Close()
		cancel(nil)
		return nil, errRanges
	}
	if resp.Header.Get("Content-Type") == "" { // stargz-snapshotter wants to know whether it has several parts
		resp.Header.Set("Content-Type", "application/octet-stream")
	}
	resp.Body = &body{ReadCloser: resp.Body, stalled: stalled, ctx: ctx, cancel: cancel}
	return resp, nil
}

type body struct {
	io.ReadCloser
	some    int // bytes since the timer was set
	stalled *time.Timer
	ctx     context.Context
	cancel  context.CancelCauseFunc
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.some += n; b.some >= stallBytes {
		b.some = 0
		b.stalled.Reset(stallWait)
	}
	if err != nil && !errors.Is(err, io.EOF) && b.ctx.Err() != nil {
		err = context.Cause(b.ctx)
	}
	return n, err
}

func (b *body) Close() error {
	b.stalled.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// nothing is a cache that keeps nothing: the server does.
type nothing struct{}

func (nothing) Get(string, ...cache.Option) (cache.Reader, error) {
	return nil, errors.New("nothing is kept here")
}
func (nothing) Add(string, ...cache.Option) (cache.Writer, error) { return nowhere{}, nil }
func (nothing) Close() error                                      { return nil }

type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) Close() error                { return nil }
func (nowhere) Commit() error               { return nil }
func (nowhere) Abort() error                { return nil }
