package lazypull

import (
	"context"
	"slices"
	"sync"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/moby/buildkit/cache"
	cacheconfig "github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/snapshot"
	"github.com/moby/buildkit/util/compression"

	"github.com/optbuild/optbuild/builder/engine/unpack"
	records "github.com/optbuild/optbuild/builder/record"
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
	if parent == nil {
		return m.Manager.New(ctx, parent, g, opts...)
	}
	note := m.Noted(parent, g)
	if !Partial(parent) {
		r, err := m.Manager.New(ctx, parent, g, opts...)
		if err != nil || note == nil {
			return r, err
		}
		return noted{r, note}, nil
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
	if note != nil {
		r = noted{r, note}
	}
	return finalizing{r}, nil
}

// Noted returns what is to be called when a step has a record mounted, in its root or elsewhere: it notes which layers are of images, since only those that steps read are worth a twin. Nil: nobody wants to know. A step need not be watched
// for that.
func (m manager) Noted(r cache.ImmutableRef, g session.Group) func() {
	if m.p == nil || m.p.twins == nil || g == nil {
		return nil
	}
	ids := session.AllSessionIDs(g)
	if !m.p.twins.Asked(ids) {
		return nil
	}
	list := r.LayerChain()
	defer func() { _ = list.Release(context.Background()) }()
	var of []string
	for _, l := range list {
		if l.GetString(records.Stored) == "" && len(imageRefs(l)) > 0 {
			of = append(of, l.ID())
		}
	}
	if len(of) == 0 {
		return nil
	}
	return sync.OnceFunc(func() { m.p.twins.Mounted(ids, of) })
}

// noted is what a step writes to.
type noted struct {
	cache.MutableRef
	note func()
}

func (n noted) Mount(ctx context.Context, readonly bool, g session.Group) (snapshot.Mountable, error) {
	if in, _ := InStep(ctx); in {
		n.note()
	}
	return n.MutableRef.Mount(ctx, readonly, g)
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

// Partial is true if there are layers of which BuildKit has the blob's address only: they have not been fetched.
func Partial(r cache.ImmutableRef) bool {
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
