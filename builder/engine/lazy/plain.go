package lazy

import (
	"context"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/progress"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Plain is a cache manager that takes references that were wrapped, and fetches them.
func Plain(m cache.Manager) cache.Manager { return plainManager{m} }

type plainManager struct{ cache.Manager }

func (m plainManager) New(ctx context.Context, parent cache.ImmutableRef, g session.Group, opts ...cache.RefOption) (cache.MutableRef, error) {
	return m.Manager.New(ctx, Unwrap(parent), g, opts...)
}

func (m plainManager) GetByBlob(ctx context.Context, d ocispecs.Descriptor, parent cache.ImmutableRef, opts ...cache.RefOption) (cache.ImmutableRef, error) {
	return m.Manager.GetByBlob(ctx, d, Unwrap(parent), opts...)
}

func (m plainManager) Merge(ctx context.Context, parents []cache.ImmutableRef, pg progress.Controller, opts ...cache.RefOption) (cache.ImmutableRef, error) {
	list := make([]cache.ImmutableRef, len(parents))
	for i, p := range parents {
		list[i] = Unwrap(p)
	}
	return m.Manager.Merge(ctx, list, pg, opts...)
}

func (m plainManager) Diff(ctx context.Context, lower, upper cache.ImmutableRef, pg progress.Controller, opts ...cache.RefOption) (cache.ImmutableRef, error) {
	return m.Manager.Diff(ctx, Unwrap(lower), Unwrap(upper), pg, opts...)
}
