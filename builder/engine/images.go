package engine

import (
	"context"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	ctdmetadata "github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/moby/buildkit/util/leaseutil"
	"google.golang.org/grpc"

	"github.com/optbuild/optbuild/builder/store/api"
)

// RegisterStore puts the local image store on s: images, content (to read and to write) and leases of [Namespace].
// Options.KeepImages is required.
func (e *Engine) RegisterStore(s *grpc.Server) {
	p := e.parts
	api.Serve(s, api.Stores{
		Images:  p.images,
		Content: p.content(),
		Leases:  leaseutil.WithNamespace(ctdmetadata.NewLeaseManager(p.mdb), Namespace),
	}, func(ctx context.Context) error {
		_, err := p.mdb.GarbageCollect(ctx)
		return err
	})
}

// namespacedImages puts [Namespace] on each call: BuildKit's exporters and sources call the image store without one. What an image consists of is held by its name.
type namespacedImages struct {
	images.Store
	content content.Store
}

func within(ctx context.Context) context.Context { return namespaces.WithNamespace(ctx, Namespace) }

func (s namespacedImages) Get(ctx context.Context, name string) (images.Image, error) {
	return s.Store.Get(within(ctx), name)
}

func (s namespacedImages) List(ctx context.Context, filters ...string) ([]images.Image, error) {
	return s.Store.List(within(ctx), filters...)
}

func (s namespacedImages) Create(ctx context.Context, image images.Image) (images.Image, error) {
	if err := api.Label(within(ctx), s.content, image.Target); err != nil {
		return images.Image{}, err
	}
	return s.Store.Create(within(ctx), image)
}

func (s namespacedImages) Update(ctx context.Context, image images.Image, fields ...string) (images.Image, error) {
	if err := api.Label(within(ctx), s.content, image.Target); err != nil {
		return images.Image{}, err
	}
	return s.Store.Update(within(ctx), image, fields...)
}

func (s namespacedImages) Delete(ctx context.Context, name string, opts ...images.DeleteOpt) error {
	return s.Store.Delete(within(ctx), name, opts...)
}
