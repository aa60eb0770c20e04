package sharing

import (
	"context"
	"fmt"
	"slices"

	"github.com/moby/buildkit/cache"
	v1 "github.com/moby/buildkit/cache/remotecache/v1"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/builder/export"
	"github.com/optbuild/optbuild/cache/remote"
)

// kindLayers is the kind of entries that say which layers RUNs have in an image: merged, and without residue. Their key is that of package export.
const (
	kindLayers      = "layers"
	mediaTypeLayers = "application/vnd.optbuild.cache.layers.v1+json"
	maxLayersBytes  = 1 << 20
)

// made is what an image's export has told.
type made struct {
	record string
	key    func([]cache.ImmutableRef) string
	value  []byte
	blobs  []ocispecs.Descriptor
}

var _ export.Elsewhere = (*Caches)(nil)

// Layers returns what was made of RUNs elsewhere.
func (c *Caches) Layers(ctx context.Context, sessions []string, key string) ([]byte, func(ocispecs.Descriptor) *cache.DescHandler) {
	for _, b := range c.of(sessions, false) {
		for _, r := range b.readings() {
			for _, e := range r.index.Find(kindLayers, key) {
				value, err := r.store.Fetch(ctx, e.Blob, maxLayersBytes)
				if err != nil {
					if ctx.Err() == nil {
						logrus.WithError(err).Warn("shared cache: layers of an image are not used")
					}
					continue
				}
				b.uses(e)
				return value, func(d ocispecs.Descriptor) *cache.DescHandler { return r.handler(ctx, d) }
			}
		}
	}
	return nil, nil
}

// Made notes layers for whoever writes a cache at the end.
func (c *Caches) Made(sessions []string, record string, key func([]cache.ImmutableRef) string, value []byte, blobs []ocispecs.Descriptor) {
	for _, b := range c.of(sessions, false) {
		b.mu.Lock()
		b.made = append(b.made, made{record, key, value, blobs})
		b.mu.Unlock()
	}
}

// layers makes entries of what images were given; their layers join the blobs.
func (e *exporter) layers(ctx context.Context, blobs v1.DescriptorProvider) (entries []remote.Entry, err error) {
	keys := map[string]bool{}
	for _, b := range e.builds {
		b.mu.Lock()
		all := slices.Clone(b.made)
		b.mu.Unlock()
		for _, m := range slices.Backward(all) { // the last one under a key is of the last image
			key := e.keyOf(ctx, m)
			if key == "" || keys[key] {
				continue
			}
			keys[key] = true
			if !e.has(ctx, b, m.blobs) {
				continue
			}
			var holds []ocispecs.Descriptor
			for _, d := range m.blobs {
				blobs[d.Digest] = v1.DescriptorProviderPair{Descriptor: d, Provider: e.caches.content, InfoProvider: e.caches.content}
				holds = append(holds, bare(d))
			}
			blob, err := e.store.PushBytes(ctx, mediaTypeLayers, m.value)
			if err != nil {
				return nil, fmt.Errorf("layers of an image: %w", err)
			}
			entries = append(entries, remote.Entry{Kind: kindLayers, Key: key, Created: now(), Blob: blob, Holds: holds})
		}
	}
	return entries, nil
}

// has is true if layers are here, or in the cache: some of a group may come from another one.
func (e *exporter) has(ctx context.Context, b *build, layers []ocispecs.Descriptor) bool {
	there := b.holds(e.store.named.Name())
	return !slices.ContainsFunc(layers, func(d ocispecs.Descriptor) bool {
		_, err := e.caches.content.Info(ctx, d.Digest)
		return err != nil && !there[d.Digest]
	})
}

// keyOf is "" for layers that no cache was asked for, or that are gone.
func (e *exporter) keyOf(ctx context.Context, m made) string {
	ref, err := e.get(ctx, m.record)
	if err != nil {
		return ""
	}
	defer func() { _ = ref.Release(context.WithoutCancel(ctx)) }()
	list := ref.LayerChain()
	defer func() { _ = list.Release(context.WithoutCancel(ctx)) }()
	return m.key(list)
}
