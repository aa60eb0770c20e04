package lazypull

import (
	"context"
	"slices"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/moby/buildkit/cache"
	cacheconfig "github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/compression"

	"github.com/optbuild/optbuild/builder/engine/unpack"
)

// Manager finalizes what is made on layers that are not here as a whole. BuildKit puts that off, and then can't load such a record in another process: it loads the mutable one first, and does
// not say (cache/manager.go, getRecord) where the layers below that can be had. It also sees to it that layers above one that has to be fetched are mounted (between), and that the lowest one is unpacked while it is fetched. The leases are
// the manager's; p may be nil.
func Manager(m cache.Manager, p *Puller, lm leases.Manager, early *unpack.Early) cache.Manager {
	return manager{m, p, lm, early}
}

type manager struct {
	cache.Manager
	p      *Puller
	leases leases.Manager
	early  *unpack.Early
}

func (m manager) New(ctx context.Context, parent cache.ImmutableRef, g session.Group, opts ...cache.RefOption) (cache.MutableRef, error) {
	if parent == nil || !partial(parent) {
		return m.Manager.New(ctx, parent, g, opts...)
	}
	for _, instead := range []func(context.Context, cache.ImmutableRef, session.Group) cache.ImmutableRef{m.OffTwins, m.onTwins} {
		if on := instead(ctx, parent, g); on != nil {
			defer func() { _ = on.Release(context.WithoutCancel(ctx)) }()
			parent = on
		}
	}
	defer m.expectLowest(ctx, parent, g)()
	m.readAhead(ctx, parent, g)
	if m.p != nil {
		if err := m.between(ctx, parent, g); err != nil {
			return nil, err
		}
	}
	r, err := m.Manager.New(ctx, parent, g, opts...)
	if err != nil {
		return nil, err
	}
	return finalizing{r}, nil
}

// expectLowest has the lowest layer unpacked while it is fetched, until release.
func (m manager) expectLowest(ctx context.Context, parent cache.ImmutableRef, g session.Group) (release func()) {
	list := parent.LayerChain()
	defer func() { _ = list.Release(context.WithoutCancel(ctx)) }()
	if !blobOnly(list[0]) {
		return func() {}
	}
	remotes, err := list[0].GetRemotes(ctx, false, cacheconfig.RefConfig{Compression: compression.New(compression.Default)}, false, g)
	if err != nil || len(remotes) == 0 || len(remotes[0].Descriptors) != 1 {
		return func() {}
	}
	return m.early.Expect(remotes[0].Descriptors[0])
}

// partial is true if there are layers of which BuildKit has the blob's address only.
func partial(r cache.ImmutableRef) bool {
	list := r.LayerChain()
	defer func() { _ = list.Release(context.Background()) }()
	return slices.ContainsFunc(list, blobOnly)
}

func blobOnly(l cache.ImmutableRef) bool {
	v := l.Get("cache.blobonly") // its cache/metadata.go
	var only bool
	return v != nil && v.Unmarshal(&only) == nil && only
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
