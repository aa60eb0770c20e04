package sharing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/cache/remotecache"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/util/contentutil"
	"github.com/moby/buildkit/worker"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/cache/remote"
)

// Plain is one of BuildKit's importers, whose layers say in their errors that they are a cache's ([remote.CantRead]). BuildKit fetches them when a step needs their files, and fails the
// build if that can't be done: it is too late to run the steps that made them. Who sees such an error may build again without the cache.
func Plain(kind string, resolve remotecache.ResolveCacheImporterFunc) remotecache.ResolveCacheImporterFunc {
	return func(ctx context.Context, g session.Group, attrs map[string]string) (remotecache.Importer, ocispecs.Descriptor, error) {
		i, desc, err := resolve(ctx, g, attrs)
		if err != nil {
			return nil, desc, err
		}
		name := kind
		for _, key := range []string{"ref", "src", "scope"} {
			if v := attrs[key]; v != "" {
				name = v
				break
			}
		}
		return plainImporter{i, name, kind != "registry"}, desc, nil
	}
}

type plainImporter struct {
	remotecache.Importer
	name  string
	check bool // what is read is not checked yet
}

// importWait is how long it may take to read what a cache has: the clients of clouds wait for ever for one that has fallen silent.
const importWait = 2 * time.Minute

func (i plainImporter) Resolve(ctx context.Context, desc ocispecs.Descriptor, id string, w worker.Worker) (solver.CacheManager, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, importWait, fmt.Errorf("%s has not said in %s what it has", i.name, importWait))
	defer cancel()
	m, err := i.Importer.Resolve(ctx, desc, id, plainWorker{w, i.name, i.check})
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	return m, err
}

type plainWorker struct {
	worker.Worker
	name  string
	check bool
}

func (w plainWorker) FromRemote(ctx context.Context, r *solver.Remote) (cache.ImmutableRef, error) {
	marked := *r
	marked.Provider = plainProvider{r.Provider, w.name, w.check}
	return w.Worker.FromRemote(ctx, &marked)
}

// plainProvider has the abilities that BuildKit looks for in a provider (solver.Remote, worker/base, contentutil).
type plainProvider struct {
	inner interface {
		content.Provider
		content.InfoProvider
	}
	name  string
	check bool
}

func (p plainProvider) failed(ctx context.Context, d digest.Digest, err error) error {
	if err == nil || err == io.EOF || ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%s %s %s: %w", d, remote.CantRead, p.name, err)
}

func (p plainProvider) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	info, err := p.inner.Info(ctx, d)
	return info, p.failed(ctx, d, err)
}

func (p plainProvider) ReaderAt(ctx context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	return p.open(ctx, p.inner, d)
}

func (p plainProvider) open(ctx context.Context, from content.Provider, d ocispecs.Descriptor) (content.ReaderAt, error) {
	r, err := from.ReaderAt(ctx, d)
	if err != nil {
		return nil, p.failed(ctx, d.Digest, err)
	}
	if p.check {
		r = newWhole(r, d.Digest)
	}
	return plainReader{r, func(err error) error { return p.failed(ctx, d.Digest, err) }}, nil
}

func (p plainProvider) ProviderForSession(g session.Group) content.Provider {
	from := contentutil.ProviderForSession(p.inner, g)
	return providerFunc(func(ctx context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
		return p.open(ctx, from, d)
	})
}

func (p plainProvider) UnlazySession(d ocispecs.Descriptor) session.Group {
	if u, ok := p.inner.(interface {
		UnlazySession(ocispecs.Descriptor) session.Group
	}); ok {
		return u.UnlazySession(d)
	}
	return nil
}

func (p plainProvider) SnapshotLabels(list []ocispecs.Descriptor, i int) map[string]string {
	if s, ok := p.inner.(interface {
		SnapshotLabels([]ocispecs.Descriptor, int) map[string]string
	}); ok {
		return s.SnapshotLabels(list, i)
	}
	return nil
}

type providerFunc func(context.Context, ocispecs.Descriptor) (content.ReaderAt, error)

func (f providerFunc) ReaderAt(ctx context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	return f(ctx, d)
}

type plainReader struct {
	content.ReaderAt
	failed func(error) error
}

func (r plainReader) ReadAt(b []byte, off int64) (int, error) {
	n, err := r.ReaderAt.ReadAt(b, off)
	if errors.Is(err, io.EOF) { // its reader may compare it
		return n, io.EOF
	}
	return n, r.failed(err)
}
