// Package lazy puts off fetching the layers below a step until something needs their files. A machine that starts with nothing then gets by without those that are only part of the image:
// the base image's, and those of steps that are replayed from a shared cache.
//
//	source, shared cache ──Ref──> solver ──> step ──New──> Manager ─┬─ a COPY or WORKDIR whose surroundings are known (Tree): made on a skeleton of them, its layer put on the lazy ones
//	                                                                └─ anything else: the layers are fetched, as without us
//
// BuildKit fetches a step's inputs when it is about to run. A Ref says that it has been, and does it when it is mounted: no step can miss files. So what is put off costs nothing but the time
// at which it happens.
package lazy

import (
	"context"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/source"
	"github.com/moby/buildkit/worker"
)

// ref is a reference that is fetched when it is mounted.
type ref struct{ cache.ImmutableRef }

// Extract does nothing yet.
func (r ref) Extract(context.Context, session.Group) error { return nil }

func (r ref) Clone() cache.ImmutableRef { return ref{r.ImmutableRef.Clone()} }

func (r ref) unwrap() cache.ImmutableRef { return r.ImmutableRef }

// wrapped is a ref, or one that is read in another way.
type wrapped interface{ unwrap() cache.ImmutableRef }

// Wrap puts off fetching a reference; nil stays nil.
func Wrap(r cache.ImmutableRef) cache.ImmutableRef {
	if _, done := r.(wrapped); done || r == nil {
		return r
	}
	return ref{r}
}

// Unwrap returns BuildKit's own reference.
func Unwrap(r cache.ImmutableRef) cache.ImmutableRef {
	if w, ok := r.(wrapped); ok {
		return w.unwrap()
	}
	return r
}

// Pending is true if layers of a reference that was wrapped have not been fetched.
func Pending(r cache.ImmutableRef) bool {
	if _, ok := r.(wrapped); !ok {
		return false
	}
	list := r.LayerChain()
	defer list.Release(context.Background())
	for _, l := range list {
		if blobOnly(l) {
			return true
		}
	}
	return false
}

// blobOnly is true for a layer that has no files yet (BuildKit's cache/metadata.go).
func blobOnly(l cache.ImmutableRef) bool {
	v := l.Get("cache.blobonly")
	var only bool
	return v != nil && v.Unmarshal(&only) == nil && only
}

// Worker is a worker whose results from registries are fetched late.
type Worker struct{ worker.Worker }

// FromRemote returns a result that is at a registry.
func (w Worker) FromRemote(ctx context.Context, remote *solver.Remote) (cache.ImmutableRef, error) {
	r, err := w.Worker.FromRemote(ctx, remote)
	if err != nil {
		return nil, err
	}
	return Wrap(r), nil
}

// Source is a source of images that are fetched late for the builds for which asked is true.
func Source(s source.Source, asked func(session.Group) bool) source.Source {
	return lateSource{s, asked}
}

type lateSource struct {
	source.Source
	asked func(session.Group) bool
}

func (s lateSource) Resolve(ctx context.Context, id source.Identifier, sm *session.Manager, v solver.Vertex) (source.SourceInstance, error) {
	i, err := s.Source.Resolve(ctx, id, sm, v)
	if err != nil {
		return nil, err
	}
	return lateInstance{i, s.asked}, nil
}

type lateInstance struct {
	source.SourceInstance
	asked func(session.Group) bool
}

func (i lateInstance) Snapshot(ctx context.Context, jobCtx solver.JobContext) (cache.ImmutableRef, error) {
	r, err := i.SourceInstance.Snapshot(ctx, jobCtx)
	if err != nil || r == nil || jobCtx == nil || !i.asked(jobCtx.Session()) {
		return r, err
	}
	return Wrap(r), nil
}
