package sharing

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/cache"
	cacheimporttypes "github.com/moby/buildkit/cache/remotecache/v1/types"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	v1 "github.com/moby/buildkit/cache/remotecache/v1"

	"github.com/optbuild/optbuild/builder/engine/chains"
)

// layersOn makes so many layers, each on the one before.
func layersOn(n int) (list []cacheimporttypes.CacheLayer) {
	for i := range n {
		list = append(list, cacheimporttypes.CacheLayer{Blob: digest.FromString("layer"), ParentIndex: i - 1})
	}
	return list
}

// results are records, each with a result that is the layer at an index.
func results(n, layer int) (list []cacheimporttypes.CacheRecord) {
	for i := range n {
		list = append(list, cacheimporttypes.CacheRecord{
			Digest: digest.FromString(fmt.Sprint(i)), Results: []cacheimporttypes.CacheResult{{LayerIndex: layer, CreatedAt: time.Now()}},
		})
	}
	return list
}

// TestHostileRecords has what would take all of the memory, or what images must not get from a cache.
func TestHostileRecords(t *testing.T) {
	good := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerZstd, Digest: digest.FromString("layer"), Size: 1, Annotations: map[string]string{"a": "b"}}
	config := func(records []cacheimporttypes.CacheRecord, layers []cacheimporttypes.CacheLayer) *cacheimporttypes.CacheConfig {
		return &cacheimporttypes.CacheConfig{Records: records, Layers: layers}
	}
	looping := layersOn(3)
	looping[0].ParentIndex = 2
	for name, c := range map[string]struct {
		s    solved
		want string // part of the error
	}{
		"as it should be":      {solved{Config: config(results(200, 59), layersOn(60)), Layers: []ocispecs.Descriptor{good}}, ""},
		"nothing":              {solved{}, "no records"},
		"too many records":     {solved{Config: config(make([]cacheimporttypes.CacheRecord, maxRecords+1), nil)}, "too many"},
		"too deep":             {solved{Config: config(results(1, maxDepth), layersOn(maxDepth+1))}, "layers lie on each other"},
		"too many lists":       {solved{Config: config(results(maxResultSize/400+1, 399), layersOn(400))}, "too many layers"},
		"a loop":               {solved{Config: config(results(1, 1), looping)}, "layers lie on each other"},
		"an own loop":          {solved{Config: config(results(1, 0), []cacheimporttypes.CacheLayer{{ParentIndex: 0}})}, "layers lie on each other"},
		"chains too long":      {solved{Config: config([]cacheimporttypes.CacheRecord{{ChainedResults: []cacheimporttypes.ChainedResult{{LayerIndexes: make([]int, maxDepth+1)}}}}, layersOn(1))}, "too many layers"},
		"no digest":            {solved{Config: config(nil, nil), Layers: []ocispecs.Descriptor{{Digest: "sha256:../../etc"}}}, "is none"},
		"a size below nothing": {solved{Config: config(nil, nil), Layers: []ocispecs.Descriptor{{Digest: good.Digest, Size: -1}}}, "is none"},
		"from elsewhere":       {solved{Config: config(nil, nil), Layers: []ocispecs.Descriptor{{Digest: good.Digest, MediaType: "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"}}}, "is none"},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := c.s.encode()
			if err != nil {
				t.Fatal(err)
			}
			s, err := decodeSolved(b)
			switch {
			case c.want == "" && err != nil, c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Fatalf("got %v, want an error with %q", err, c.want)
			case err == nil:
				if err := s.into(v1.NewCacheChains(), nil, "r.example/cache:latest"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	evil := good
	evil.URLs, evil.Data, evil.ArtifactType = []string{"http://metadata.test/secret"}, []byte("x"), "application/x"
	b, err := (&solved{Config: config(nil, nil), Layers: []ocispecs.Descriptor{evil}}).encode()
	if err != nil {
		t.Fatal(err)
	}
	s, err := decodeSolved(b)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := show(s.Layers[0]), show(good); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func show(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// TestUnpackJSON has blobs that are small and become large.
func TestUnpackJSON(t *testing.T) {
	for name, c := range map[string]struct {
		plain string
		want  string
	}{
		"few values":          {`{"records":[` + strings.Repeat("{},", 1000) + `{}]}`, ""},
		"many empty objects":  {`[` + strings.Repeat("{},", chains.MaxValues/2) + `{}]`, "values"},
		"many empty lists":    {`[` + strings.Repeat("[],", chains.MaxValues/2) + `[]]`, "values"},
		"many numbers":        {`[` + strings.Repeat("0,", chains.MaxValues) + `0]`, "values"},
		"a bomb":              {strings.Repeat(" ", 65<<20), "exceeds"},
		"a very long string":  {`"` + strings.Repeat("x", 1<<20) + `"`, ""},
		"nothing at all here": {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			z, err := pack([]byte(c.plain))
			if err != nil {
				t.Fatal(err)
			}
			plain, err := unpackJSON(z, 64<<20)
			if c.want == "" && (err != nil || string(plain) != c.plain) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %d bytes, %v; want an error with %q", len(plain), err, c.want)
			}
		})
	}
	if _, err := unpackJSON([]byte("no zstd"), 1<<20); err == nil {
		t.Error("what is not compressed is no error")
	}
}

// TestOthers: builds see the caches that they asked for, and are told of by nobody else.
func TestOthers(t *testing.T) {
	c := New(nil, nil, nil, nil)
	for _, s := range []string{"a", "b"} {
		b := c.of([]string{s}, true)[0]
		b.reads(reading{}, []*solved{{Names: map[string]string{"fetched": "made by " + s}, Stored: map[string]string{"chain": "layer of " + s}, Sums: map[string]string{"diff": "sum of " + s}}})
	}
	if got := c.LayerID([]string{"b"}, "chain") + ", " + c.Sum([]string{"a"}, "diff"); got != "layer of b, sum of a" {
		t.Error(got)
	}
	if got := c.Chain([]string{"b"}, "fetched"); got != "made by b" || c.Chain([]string{"c"}, "fetched") != "" {
		t.Errorf("a chain is called %q", got)
	}
	if c.Asked([]string{"c"}) || c.LayerID([]string{"c"}, "chain") != "" || c.Sum(nil, "diff") != "" {
		t.Error("a build that asked for no cache has one")
	}
	key := func([]cache.ImmutableRef) string { return "key" }
	c.Made([]string{"a"}, "record", key, []byte("value"), nil)
	c.Made([]string{"c"}, "record", key, []byte("value"), nil)
	if a, b := c.builds["a"], c.builds["b"]; len(a.made) != 1 || len(b.made) != 0 || len(c.builds) != 2 {
		t.Errorf("got %v, %v and %d builds", a.made, b.made, len(c.builds))
	}
	// The oldest are forgotten.
	for i := range maxBuilds {
		c.of([]string{fmt.Sprint(i)}, true)
	}
	if c.Asked([]string{"a"}) || !c.Asked([]string{fmt.Sprint(maxBuilds - 1)}) || len(c.builds) != maxBuilds || slices.Contains(c.order, "b") {
		t.Errorf("%d builds are remembered", len(c.builds))
	}
}
