package lazypull

import (
	"context"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/session"
)

// Manager finalizes what is made on layers that are not here as a whole. BuildKit puts that off, and then can't load such a record in another process: it loads the mutable one first, and does
// not say (cache/manager.go, getRecord) where the layers below that can be had.
func Manager(m cache.Manager) cache.Manager { return manager{m} }

type manager struct{ cache.Manager }

func (m manager) New(ctx context.Context, parent cache.ImmutableRef, g session.Group, opts ...cache.RefOption) (cache.MutableRef, error) {
	r, err := m.Manager.New(ctx, parent, g, opts...)
	if err != nil || parent == nil || !partial(parent) {
		return r, err
	}
	return finalizing{r}, nil
}

// partial is true if there are layers of which BuildKit has the blob's address only.
func partial(r cache.ImmutableRef) bool {
	list := r.LayerChain()
	defer func() { _ = list.Release(context.Background()) }()
	for _, l := range list {
		v := l.Get("cache.blobonly") // its cache/metadata.go
		var only bool
		if v != nil && v.Unmarshal(&only) == nil && only {
			return true
		}
	}
	return false
}

type finalizing struct{ cache.MutableRef }

func (f finalizing) Commit(ctx context.Context) (cache.ImmutableRef, error) {
	r, err := f.MutableRef.Commit(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.Finalize(ctx); err != nil {
		_ = r.Release(context.WithoutCancel(ctx))
		return nil, err
	}
	return r, nil
}
