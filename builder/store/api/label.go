package api

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Label links what is there of images to what it refers to, for the garbage collector, as far as that is not done. Whoever writes a manifest does it, but for a manifest that was there: one that BuildKit has
// fetched to start a stage from has no links, and gets none from an export of the same image.
func Label(ctx context.Context, store content.Store, targets ...ocispecs.Descriptor) error {
	label := func(ctx context.Context, d ocispecs.Descriptor) ([]ocispecs.Descriptor, error) {
		if !images.IsIndexType(d.MediaType) && !images.IsManifestType(d.MediaType) {
			return nil, nil
		}
		children, err := images.Children(ctx, store, d)
		if errdefs.IsNotFound(err) { // a platform that is not here
			return nil, images.ErrSkipDesc
		}
		if err != nil {
			return nil, err
		}
		info, err := store.Info(ctx, d.Digest)
		if err != nil {
			return nil, err
		}
		if linked(info, children) {
			return children, nil
		}
		return images.SetChildrenLabels(store, func(context.Context, ocispecs.Descriptor) ([]ocispecs.Descriptor, error) { return children, nil })(ctx, d)
	}
	if err := images.Walk(ctx, images.HandlerFunc(label), slices.Clone(targets)...); err != nil {
		return fmt.Errorf("label content: %w", err)
	}
	return nil
}

// gcReference begins the labels by which a blob holds others, as containerd's documentation of garbage collection has it.
const gcReference = "containerd.io/gc.ref.content"

// linked is true if a blob has links to all of its children.
func linked(info content.Info, children []ocispecs.Descriptor) bool {
	to := map[string]bool{}
	for k, v := range info.Labels {
		if strings.HasPrefix(k, gcReference) {
			to[v] = true
		}
	}
	return !slices.ContainsFunc(children, func(d ocispecs.Descriptor) bool { return !to[d.Digest.String()] })
}
