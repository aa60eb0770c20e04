package actionscache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/buildkit/cache/remotecache"
	v1 "github.com/moby/buildkit/cache/remotecache/v1"
	cacheimporttypes "github.com/moby/buildkit/cache/remotecache/v1/types"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/worker"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	actions "github.com/tonistiigi/go-actions-cache"
	"golang.org/x/sync/errgroup"

	"github.com/optbuild/optbuild/builder/engine/chains"
)

// Importer returns what makes BuildKit's importers of type gha. An index that check refuses is not used.
func Importer(check chains.Check) remotecache.ResolveCacheImporterFunc {
	return func(_ context.Context, _ session.Group, attrs map[string]string) (remotecache.Importer, ocispecs.Descriptor, error) {
		s, err := open(attrs)
		if err != nil {
			return nil, ocispecs.Descriptor{}, fmt.Errorf("cache type=gha: %w", err)
		}
		return &importer{s, check}, ocispecs.Descriptor{}, nil
	}
}

type importer struct {
	service *service
	check   chains.Check
}

// Resolve reads the newest indexes of all branches that the token shows, and makes one cache of them.
//
// BuildKit makes a cache of each, and of these one that asks all; of two keys that are the same to them it keeps the first that comes. A step below which only one branch has a result
// was found or not by chance.
func (i *importer) Resolve(ctx context.Context, _ ocispecs.Descriptor, id string, w worker.Worker) (solver.CacheManager, error) {
	branches := i.service.cache.Scopes()
	indexes := make([]*cacheimporttypes.CacheConfig, len(branches))
	group, gctx := errgroup.WithContext(ctx)
	for n, b := range branches {
		group.Go(func() (err error) {
			indexes[n], err = i.index(gctx, b.Scope)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	all := v1.NewCacheChains()
	for n, index := range indexes {
		if err := chains.Add(index, i.check, i.provide, all); err != nil {
			return nil, fmt.Errorf("index of %s: %w", branches[n].Scope, err)
		}
	}
	keys, results, err := v1.NewCacheKeyStorage(all, w)
	if err != nil {
		return nil, err
	}
	return solver.NewCacheManager(ctx, id, keys, results), nil
}

// index reads a branch's newest one. It has nothing if the branch has none.
func (i *importer) index(ctx context.Context, branch string) (*cacheimporttypes.CacheConfig, error) {
	e, _, err := i.service.newest(ctx, i.service.indexKey(branch))
	if e == nil || err != nil {
		return &cacheimporttypes.CacheConfig{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, i.service.timeout)
	defer cancel()
	b := &chains.Buffer{}
	if err := e.WriteTo(ctx, b); err != nil {
		return nil, fmt.Errorf("read %s: %w", e.Key, err)
	}
	index, err := b.Decode()
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", e.Key, err)
	}
	return index, nil
}

func (i *importer) provide(d ocispecs.Descriptor) v1.DescriptorProviderPair {
	p := &layer{service: i.service, desc: d}
	return v1.DescriptorProviderPair{Descriptor: d, Provider: p, InfoProvider: p}
}

// layer provides one layer. What it reads is checked against its digest by who asks for it.
type layer struct {
	service *service
	desc    ocispecs.Descriptor

	mu    sync.Mutex
	found *actions.Entry // nil: not looked up yet
}

func (l *layer) entry(ctx context.Context, d digest.Digest) (*actions.Entry, error) {
	if d != l.desc.Digest {
		return nil, fmt.Errorf("layer %s: %w", d, cerrdefs.ErrNotFound)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.found == nil {
		e, err := l.service.entry(ctx, blobKey(d))
		if err != nil {
			return nil, err
		}
		if e == nil {
			return nil, fmt.Errorf("layer %s is not in the cache any more: %w", d, cerrdefs.ErrNotFound)
		}
		l.found = e
	}
	return l.found, nil
}

func (l *layer) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	if _, err := l.entry(ctx, d); err != nil {
		return content.Info{}, err
	}
	return content.Info{Digest: d, Size: l.desc.Size}, nil
}

func (l *layer) ReaderAt(ctx context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	e, err := l.entry(ctx, d.Digest)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	return &reader{ReaderAtCloser: e.Download(ctx), size: l.desc.Size, stall: l.service.stall, ctx: ctx, cancel: cancel}, nil
}

// reader reads a layer in one connection as long as it is read from the beginning to the end.
type reader struct {
	actions.ReaderAtCloser
	size   int64
	stall  time.Duration
	ctx    context.Context // the connection's
	cancel context.CancelCauseFunc
}

var errStalled = errors.New("the service does not send it any more")

func (r *reader) Size() int64 { return r.size }

func (r *reader) ReadAt(p []byte, off int64) (int, error) {
	if off >= r.size {
		return 0, io.EOF
	}
	timer := time.AfterFunc(r.stall, func() { r.cancel(errStalled) })
	defer timer.Stop()
	n, err := r.ReaderAtCloser.ReadAt(p, off)
	if cause := context.Cause(r.ctx); err != nil && err != io.EOF && cause != nil {
		return n, cause
	}
	return n, err
}

func (r *reader) Close() error {
	defer r.cancel(nil)
	return r.ReaderAtCloser.Close()
}
