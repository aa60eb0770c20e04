package sharing

import (
	"context"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/distribution/reference"
	v1 "github.com/moby/buildkit/cache/remotecache/v1"
	"github.com/moby/buildkit/util/progress"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// maxPushes is how many layers are sent at a time.
const maxPushes = 4

// push sends layers that the registry does not have. Of those that an index held when it was read it is not asked.
func (e *exporter) push(ctx context.Context, blobs v1.DescriptorProvider) error {
	there := map[digest.Digest]bool{}
	for _, b := range e.builds {
		maps.Copy(there, b.holds(e.store.named.Name()))
	}
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(maxPushes)
	for d, pair := range blobs {
		if there[d] {
			continue
		}
		eg.Go(func() error {
			done := progress.OneOff(ctx, "sending layer "+pair.Descriptor.Digest.String())
			return done(e.store.Push(ctx, bare(pair.Descriptor), pair, e.source(ctx, pair.Descriptor)))
		})
	}
	return eg.Wait()
}

// source is a repository of the same registry that has a layer, most often since the image was pushed there: it is mounted from there, and not sent again. Nil: none is known.
func (e *exporter) source(ctx context.Context, d ocispecs.Descriptor) reference.Named {
	host := reference.Domain(e.store.named)
	key := labels.LabelDistributionSource + "." + host
	if h, _, err := net.SplitHostPort(host); err == nil { // so containerd notes it
		key = labels.LabelDistributionSource + "." + h
	}
	repositories := d.Annotations[key]
	if info, err := e.caches.content.Info(ctx, d.Digest); err == nil {
		repositories = info.Labels[key]
	}
	for _, path := range slices.Backward(strings.Split(repositories, ",")) {
		named, err := reference.WithName(host + "/" + path)
		if err == nil && named.Name() != e.store.named.Name() {
			return named
		}
	}
	return nil
}
