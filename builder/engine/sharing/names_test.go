package sharing

import (
	"context"
	"maps"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/containerd/stargz-snapshotter/estargz"
	v1 "github.com/moby/buildkit/cache/remotecache/v1"
	cacheimporttypes "github.com/moby/buildkit/cache/remotecache/v1/types"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/record"
)

// blobInfos are the labels of the blobs that are here.
type blobInfos struct {
	content.Store
	labels map[digest.Digest]map[string]string
}

func (b blobInfos) Info(_ context.Context, d digest.Digest) (content.Info, error) {
	l, ok := b.labels[d]
	if !ok {
		return content.Info{}, errdefs.ErrNotFound
	}
	return content.Info{Digest: d, Labels: l}, nil
}

// A base image has a table of contents everywhere. Of the layers on it one was compressed here, with a table, one has none, and one came from another machine's cache with its table. Those who fetch them call all that lies on the
// first one otherwise.
func TestNames(t *testing.T) {
	blobs := v1.DescriptorProvider{}
	var layers []cacheimporttypes.CacheLayer
	add := func(name, toc string) {
		d := ocispecs.Descriptor{Digest: digest.FromString("blob of " + name), Annotations: map[string]string{labels.LabelUncompressed: "sha256:" + name}}
		if toc != "" {
			d.Annotations[estargz.TOCJSONDigestAnnotation] = toc
		}
		blobs[d.Digest] = v1.DescriptorProviderPair{Descriptor: d}
		layers = append(layers, cacheimporttypes.CacheLayer{Blob: d.Digest, ParentIndex: len(layers) - 1})
	}
	add("base", "table of base")
	add("made", "table of made")
	add("small", "")
	add("other", "table of other")
	infos := blobInfos{labels: map[digest.Digest]map[string]string{
		layers[0].Blob: {"containerd.io/uncompressed": "sha256:base"}, layers[1].Blob: {"optbuild.cached": "yes"}, layers[2].Blob: {},
	}}
	chain := func(diffIDsAndTables ...string) (c string) {
		for i := 0; i < len(diffIDsAndTables); i += 2 {
			c = record.ChainOf(c, diffIDsAndTables[i], diffIDsAndTables[i+1])
		}
		return c
	}
	base := []string{"sha256:base", "table of base"}
	fetched := append(base, "sha256:made", "table of made")
	made := append(base[:2:2], "sha256:made", "")
	other := chain(append(fetched, "sha256:small", "", "sha256:other", "table of other")...)
	want := map[string]string{
		chain(fetched...): chain(made...),
		chain(append(fetched, "sha256:small", "")...): chain(append(made, "sha256:small", "")...),
		other: chain(append(made, "sha256:small", "", "sha256:other", "table of other")...),
	}
	c := New(nil, nil, nil, infos)
	e := &exporter{caches: c, builds: c.of([]string{"a"}, true)}
	if got := e.names(t.Context(), layers, blobs); !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if got := c.Chain([]string{"a"}, other); got != want[other] {
		t.Errorf("%s is called %q here", other, got)
	}

	// Another machine knows a name of the third one, from the cache that it came with.
	c = New(nil, nil, nil, blobInfos{})
	e = &exporter{caches: c, builds: c.of([]string{"a"}, true)}
	e.builds[0].reads(reading{}, []*solved{{Names: want}})
	if got := e.names(t.Context(), layers, blobs); !maps.Equal(got, want) {
		t.Errorf("of what was fetched: got  %v\nwant %v", got, want)
	}
}
