package export

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/util/contentutil"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/record"
)

// merged is an image's result with other layers. It has the files of the result that it embeds (mounted, they are those with the residue); exporters of images ask for its
// layers only.
type merged struct {
	cache.ImmutableRef
	below   []cache.ImmutableRef // what the layers that stay as they are belong to, the lowest first, see segments
	records []cache.ImmutableRef // of the layers above
	descs   []ocispecs.Descriptor
	content content.Store
}

// GetRemotes returns the image's layers: those that stay, as BuildKit gives them, and the new ones.
func (m *merged) GetRemotes(ctx context.Context, create bool, cfg config.RefConfig, _ bool, s session.Group) ([]*solver.Remote, error) {
	p := provider{MultiProvider: contentutil.NewMultiProvider(m.content)}
	remote := &solver.Remote{}
	for _, ref := range m.below {
		list, err := ref.GetRemotes(ctx, create, cfg, false, s)
		if err != nil {
			return nil, err
		}
		for _, d := range list[0].Descriptors {
			p.Add(d.Digest, list[0].Provider)
			remote.Descriptors = append(remote.Descriptors, d)
		}
		p.below = append(p.below, list[0].Provider)
	}
	for i, d := range m.descs {
		provider := content.InfoReaderProvider(m.content)
		if _, err := m.content.Info(ctx, d.Digest); err != nil { // it is elsewhere
			list, err := m.records[i].GetRemotes(ctx, false, cfg, false, s)
			if err != nil {
				return nil, err
			}
			provider = list[0].Provider
		}
		p.Add(d.Digest, provider)
		remote.Descriptors = append(remote.Descriptors, d)
	}
	remote.Provider = p
	return []*solver.Remote{remote}, nil
}

// LayerChain has a reference for each layer.
func (m *merged) LayerChain() (list cache.RefList) {
	for _, r := range m.below {
		list = append(list, r.LayerChain()...)
	}
	for _, r := range m.records {
		list = append(list, r.Clone())
	}
	return list
}

func (m *merged) release(ctx context.Context) error {
	var errs []error
	for _, r := range slices.Concat(m.records, m.below) {
		errs = append(errs, r.Release(ctx))
	}
	return errors.Join(errs...)
}

// segments returns references that together have the given layers. Most often that is one, the topmost: the others lie below it. Where layers were laid
// upon others that they know nothing of (COPY --link), there are several. Layers of image that were not fetched can be had from them as they can from that.
func (j *job) segments(ctx context.Context, image cache.ImmutableRef, chain []cache.ImmutableRef) (refs []cache.ImmutableRef, err error) {
	handlers := cache.DescHandlers{}
	for _, l := range chain {
		d := digest.Digest(l.GetString(record.Blob))
		if h := image.DescHandler(d); h != nil {
			handlers[d] = h
		}
	}
	for len(chain) > 0 {
		top := chain[len(chain)-1]
		own := top.LayerChain()
		fits := len(own) > 0 && len(own) <= len(chain)
		for i := range own {
			fits = fits && own[i].ID() == chain[len(chain)-len(own)+i].ID()
		}
		if err := own.Release(context.Background()); err != nil {
			return refs, err
		}
		if !fits {
			return refs, fmt.Errorf("%w: a layer lies on others than its image has", errUnsupported)
		}
		ref := top
		if len(handlers) == 0 {
			ref = top.Clone()
		} else if ref, err = j.Manager.Get(ctx, top.ID(), nil, cache.NoUpdateLastUsed, handlers); err != nil { // a record that was read when the engine started knows nobody who has the layers below it
			return refs, err
		}
		refs = slices.Insert(refs, 0, ref)
		chain = chain[:len(chain)-len(own)]
	}
	return refs, nil
}

// provider gives the blobs of layers. Those that stay may still have to be fetched.
type provider struct {
	*contentutil.MultiProvider
	below []content.InfoReaderProvider
}

// Unlazy fetches what has not been fetched yet.
func (p provider) Unlazy(ctx context.Context) error {
	for _, b := range p.below {
		if u, ok := b.(cache.Unlazier); ok {
			if err := u.Unlazy(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}
