package export

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/compression"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/export/strip"
	"github.com/optbuild/optbuild/builder/record"
)

// storedLayer is a record of a RUN's layer that is stored under an id.
type storedLayer struct {
	cache.ImmutableRef
	id string
}

func (l storedLayer) ID() string { return "record of " + l.id }

func (l storedLayer) GetString(field string) string {
	switch field {
	case record.Stored:
		return l.id
	case record.Chain, record.DiffID:
		return digest.FromString(l.id).String()
	}
	return ""
}

// told is a cache that has what it was told.
type told map[string][]byte

func (told) Asked([]string) bool             { return true }
func (told) Chain([]string, string) string   { return "" }
func (told) LayerID([]string, string) string { return "" }

func (t told) Layers(_ context.Context, _ []string, key string) ([]byte, func(ocispecs.Descriptor) *cache.DescHandler) {
	return t[key], func(ocispecs.Descriptor) *cache.DescHandler { return &cache.DescHandler{} }
}

func (t told) Made(_ []string, _ string, key func([]cache.ImmutableRef) string, value []byte, _ []ocispecs.Descriptor) {
	t[key(chainOf("base", "install", "build"))] = value
}

func chainOf(ids ...string) (list []cache.ImmutableRef) {
	for _, id := range ids {
		list = append(list, storedLayer{id: id})
	}
	return list
}

// testJob exports an image of a base and two RUNs, which are divided in so many units.
func testJob(t *testing.T, e Elsewhere, sizes []int, ids ...string) (*job, unit) {
	t.Helper()
	j := &job{
		Merger: &Merger{Dir: t.TempDir(), Elsewhere: e}, chain: chainOf(ids...), base: 1, kinds: []kind{run, run}, strip: strip.New(nil, strip.Config{}),
		comp: compression.New(compression.Gzip), session: session.NewGroup("s"),
	}
	u := unit{first: 1, last: 2, steps: []step{{kind: run}, {kind: run}}}
	k := j.exactKey(u)
	k.add("divided", fmt.Sprint(minDivided))
	if err := index(j.Dir).put(k, outcome{Units: sizes}); err != nil {
		t.Fatal(err)
	}
	return j, u
}

func layerNamed(name string) outcome {
	return outcome{Desc: &ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerGzip, Digest: digest.FromString(name), Size: 1, Annotations: map[string]string{
		labels.LabelUncompressed: digest.FromString("content of " + name).String(),
	}}}
}

// TestSharedParts: others find a group that is what it was; of one in which a RUN ran again, those parts that it is not in.
func TestSharedParts(t *testing.T) {
	has := told{}
	j, u := testJob(t, has, []int{1, 1}, "base", "install", "build")
	g, err := j.group(t.Context(), u, SquashRuns)
	if err != nil || len(g.parts) != 2 || g.found || len(g.outcomes) > 0 {
		t.Fatalf("with nothing there: %+v, %v", g, err)
	}
	g.outcomes[1], g.outcomes[2] = layerNamed("install"), layerNamed("build")
	j.pass(g)
	if len(has) != 3 {
		t.Fatalf("%d entries, not one of the group and one of each part", len(has))
	}
	for _, tc := range []struct {
		name  string
		ids   []string
		sizes []int
		want  []int // parts that were found, by their first layers
	}{
		{"the same", []string{"base", "install", "build"}, []int{2}, []int{1, 2}},
		{"the last one ran again", []string{"base", "install", "another build"}, []int{1, 1}, []int{1}},
		{"the first one ran again", []string{"base", "another install", "build"}, []int{1, 1}, []int{2}},
		{"they are one layer now", []string{"base", "install", "another build"}, []int{2}, nil},
		{"another base", []string{"other", "install", "build"}, []int{1, 1}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j, u := testJob(t, has, tc.sizes, tc.ids...)
			g, err := j.group(t.Context(), u, SquashRuns)
			if err != nil {
				t.Fatal(err)
			}
			var got []int
			for _, p := range g.parts {
				if g.handlers[p.first] == nil {
					continue
				}
				got = append(got, p.first)
				o, err := j.outcomeOf(t.Context(), g, p, true)
				if want := layerNamed(map[int]string{1: "install", 2: "build"}[p.first]); err != nil || o.Desc.Digest != want.Desc.Digest {
					t.Errorf("part %d is %+v, %v", p.first, o, err)
				}
			}
			if !slices.Equal(got, tc.want) || g.found != (len(tc.want) == 2) {
				t.Errorf("found %d (all: %v), want %d", got, g.found, tc.want)
			}
		})
	}

	// What a part is said to be divided into is no part.
	hostile := told{}
	j, u = testJob(t, hostile, []int{1, 1}, "base", "install", "build")
	value, err := json.Marshal(sharedGroup{Units: []int{1, 1}, Outcomes: []outcome{layerNamed("a"), layerNamed("b")}})
	if err != nil {
		t.Fatal(err)
	}
	hostile[j.sharedKey(u.cut([]int{1, 1})[0]).of(j.chain)] = value
	if g, err := j.group(t.Context(), u, SquashRuns); err != nil || len(g.handlers) > 0 || len(g.parts) != 2 {
		t.Errorf("got %+v, %v", g, err)
	}
}
