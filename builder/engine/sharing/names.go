package sharing

import (
	"context"
	"maps"
	"slices"

	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/moby/buildkit/cache"
	v1 "github.com/moby/buildkit/cache/remotecache/v1"
	cacheimporttypes "github.com/moby/buildkit/cache/remotecache/v1/types"

	"github.com/optbuild/optbuild/builder/compress"
	"github.com/optbuild/optbuild/builder/record"
)

// Chain returns the name of a chain of layers that were fetched; "" if it is its own.
func (c *Caches) Chain(sessions []string, chain string) string {
	for _, b := range c.of(sessions, false) {
		if name := c.named(b, chain); name != "" {
			return name
		}
	}
	return ""
}

func (c *Caches) named(b *build, chain string) string {
	b.mu.Lock()
	name := b.names[chain]
	b.mu.Unlock()
	if name != "" {
		return name
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.names[chain]
}

// chains are the names of a record's layers, the lowest first.
func (e *exporter) chains(ref cache.ImmutableRef) []string {
	list := ref.LayerChain()
	defer func() { _ = list.Release(context.Background()) }()
	return record.Chains(list, e.named)
}

func (e *exporter) named(chain string) string {
	for _, b := range e.builds {
		if name := e.caches.named(b, chain); name != "" {
			return name
		}
	}
	return ""
}

// chain is the name of a record's topmost layer with those below it; "" if it has no digest.
func (e *exporter) chain(ref cache.ImmutableRef) string {
	if all := e.chains(ref); len(all) > 0 {
		return all[len(all)-1]
	}
	return ""
}

// names are those of the layers that are exported, as far as who fetches them calls them otherwise.
func (e *exporter) names(ctx context.Context, layers []cacheimporttypes.CacheLayer, blobs v1.DescriptorProvider) map[string]string {
	fetched, here := make([]string, len(layers)), make([]fields, len(layers)) // what they are called by who fetches them, and here
	names := map[string]string{}
	for i := range layers {
		var way []int // from the layer down, as far as that is not known
		for at := i; at >= 0 && at < len(layers) && fetched[at] == "" && len(way) <= maxDepth; at = layers[at].ParentIndex {
			way = append(way, at)
		}
		for _, at := range slices.Backward(way) {
			d := blobs[layers[at].Blob].Descriptor
			diffID, toc := d.Annotations[labels.LabelUncompressed], d.Annotations[estargz.TOCJSONDigestAnnotation]
			var below, belowHere string
			if p := layers[at].ParentIndex; p >= 0 && p < len(layers) {
				below, belowHere = fetched[p], here[p][record.Chain]
			}
			fetched[at] = record.ChainOf(below, diffID, toc)
			if info, err := e.caches.content.Info(ctx, d.Digest); err == nil && compress.MadeForCache(info.Labels) {
				toc = ""
			}
			here[at] = fields{record.Chain: record.ChainOf(belowHere, diffID, toc), record.DiffID: diffID}
		}
		var list []fields
		for at := i; at >= 0 && at < len(layers) && len(list) <= maxDepth; at = layers[at].ParentIndex {
			list = append(list, here[at])
		}
		slices.Reverse(list)
		if all := record.Chains(list, e.named); all[len(all)-1] != fetched[i] {
			names[fetched[i]] = all[len(all)-1]
		}
	}
	e.caches.mu.Lock()
	defer e.caches.mu.Unlock()
	if len(e.caches.names) > maxNames {
		clear(e.caches.names)
	}
	maps.Copy(e.caches.names, names)
	return names
}

// maxNames bounds what is remembered of layers' names.
const maxNames = 10_000

// fields are those of a record that a layer has here.
type fields map[string]string

func (f fields) GetString(field string) string { return f[field] }
