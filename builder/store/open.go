package store

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/util/contentutil"
	"github.com/moby/buildkit/util/errutil"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Opened is an image that can be read.
type Opened struct {
	Name string // as it is shown
	// Target is a manifest, for images of the store, or what the registry has under the name; Root is what the name stands for.
	Target, Root ocispecs.Descriptor
	Blobs        content.Provider
	// Close lets go of the image. Until then its blobs are safe from collection.
	Close func() error
}

// Open finds an image of the store, for a platform, or, if that is nil, for the one that fits the host best. All of that is there.
func (s *Store) Open(ctx context.Context, ref string, p *ocispecs.Platform) (Opened, error) {
	image, err := s.get(ctx, ref)
	if err != nil {
		return Opened{}, err
	}
	ctx, end, err := s.lease(ctx, image.Target)
	if err != nil {
		return Opened{}, err
	}
	o := Opened{Name: Familiar(image.Name), Root: image.Target, Blobs: s.Content, Close: func() (err error) { end(&err); return err }}
	v, err := s.survey(ctx, image.Target)
	if err == nil {
		m, ok := v.main()
		if p != nil {
			if m, ok = v.find(*p); !ok {
				err = fmt.Errorf("%w %s", errNoPlatform, platforms.FormatAll(*p))
			}
		} else if !ok {
			err = ErrIncomplete
		}
		o.Target = m.desc
	}
	if err != nil {
		_ = o.Close()
		return Opened{}, fmt.Errorf("open %s: %w", ref, err)
	}
	if isDangling(image.Name) {
		o.Name = ref
	}
	return o, nil
}

// OpenRemote finds an image at its registry. Nothing of it is kept.
func (s *Store) OpenRemote(ctx context.Context, ref string) (Opened, error) {
	named, err := ParseName(ref)
	if err != nil {
		return Opened{}, err
	}
	resolver := s.resolver()
	_, target, err := resolver.Resolve(ctx, named.String())
	if err != nil {
		return Opened{}, fmt.Errorf("open %s: %w", ref, errutil.WithDetails(err))
	}
	fetcher, err := resolver.Fetcher(ctx, named.String())
	if err != nil {
		return Opened{}, fmt.Errorf("open %s: %w", ref, err)
	}
	return Opened{Name: Familiar(named.String()), Target: target, Root: target, Blobs: contentutil.FromFetcher(fetcher), Close: func() error { return nil }}, nil
}

// DanglingPrefix is for BuildKit's image exporter: what it exports without a name is in the store then all the same.
const DanglingPrefix = "dangling"

// Dangling lists the images without a name.
func (s *Store) Dangling(ctx context.Context) (map[digest.Digest]bool, error) {
	all, err := s.Images.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	found := map[digest.Digest]bool{}
	for _, image := range all {
		if isDangling(image.Name) {
			found[image.Target.Digest] = true
		}
	}
	return found, nil
}

// Forget removes the image without a name that has an id, and leaves the names that the image may have alone.
func (s *Store) Forget(ctx context.Context, id digest.Digest) error {
	if err := s.Images.Delete(ctx, danglingName(id)); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove %s: %w", id, err)
	}
	return nil
}
