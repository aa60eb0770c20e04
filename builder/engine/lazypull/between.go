package lazypull

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/moby/buildkit/cache"
	cacheconfig "github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/util/compression"
	"github.com/moby/buildkit/util/leaseutil"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
)

// between has layers with a table of contents mounted that lie on ones without. BuildKit asks for each layer, from the lowest one up, whether it can be had without fetching it, and fetches all above the first one that can't: on
// a plain base image nothing would be mounted. Here what is below such a layer is fetched first, and then it is asked again. What has to be fetched anyway is fetched meanwhile, all at once as ever.
func (m manager) between(ctx context.Context, parent cache.ImmutableRef, g session.Group) error {
	if !m.wantsParts(g) {
		return nil
	}
	remotes, err := parent.GetRemotes(ctx, false, cacheconfig.RefConfig{Compression: compression.New(compression.Default)}, false, g)
	if err != nil || len(remotes) == 0 {
		return nil //nolint:nilerr // layers have no blobs: none of them is at a registry only
	}
	list := parent.LayerChain()
	defer func() { _ = list.Release(context.WithoutCancel(ctx)) }()
	layers := remotes[0].Descriptors
	if len(layers) != len(list) {
		return nil
	}
	inParts := func(i int) bool { return hasTable(layers[i]) || hasTwin(parent.DescHandler(layers[i].Digest)) }
	last, plain := -1, false // the highest layer with a table above a plain one
	for i, l := range list {
		switch {
		case !blobOnly(l):
		case !inParts(i):
			plain = true
		case plain:
			last = i
		}
	}
	if last < 0 {
		return nil // BuildKit does it right
	}
	eg, ctx := errgroup.WithContext(ctx)
	for i, l := range list {
		if blobOnly(l) && !inParts(i) {
			eg.Go(func() error {
				m.fetch(ctx, remotes[0], layers[i])
				return nil
			})
		}
	}
	eg.Go(func() error {
		for i, l := range list[:last+1] {
			if !blobOnly(l) || !inParts(i) {
				continue
			}
			if i > 0 {
				if err := list[i-1].Extract(ctx, g); err != nil {
					return err
				}
			}
			if err := l.Extract(ctx, g); err != nil {
				return err
			}
		}
		return nil
	})
	return eg.Wait()
}

// wantsParts is true if layers may be mounted for the sessions.
func (m manager) wantsParts(g session.Group) bool {
	return os.Getenv(variable) != never && m.p.supported() == nil && !m.p.link.isFast() && !m.p.wantsWhole(session.AllSessionIDs(g))
}

func hasTable(d ocispecs.Descriptor) bool {
	return d.Annotations[estargz.TOCJSONDigestAnnotation] != ""
}

func hasTwin(h *cache.DescHandler) bool { return h != nil && h.SnapshotLabels[twinLabel] != "" }

// fetch has a layer's blob here. Whoever needs it then is told what goes wrong.
func (m manager) fetch(ctx context.Context, layers *solver.Remote, d ocispecs.Descriptor) {
	ctx, done, err := leaseutil.WithLease(ctx, m.leases, leaseutil.MakeTemporary)
	if err == nil {
		defer func() { _ = done(context.WithoutCancel(ctx)) }()
		ra, opened := layers.Provider.ReaderAt(ctx, d)
		if err = opened; err == nil {
			err = ra.Close()
		}
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		logrus.WithError(err).Debugf("layer %s is not fetched ahead", d.Digest)
	}
}

// wantsWhole is true if one of the sessions is of a build that wants layers whole.
func (p *Puller) wantsWhole(sessions []string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(sessions, func(s string) bool { return slices.Contains(p.whole, s) })
}
