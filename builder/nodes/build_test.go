package nodes

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

// ref is a result that is told by its name.
type ref struct {
	gwclient.Reference
	name string
}

func result(meta map[string]string, refs ...string) *gwclient.Result {
	r := gwclient.NewResult()
	for k, v := range meta {
		r.AddMeta(k, []byte(v))
	}
	for _, name := range refs {
		r.AddRef(name, ref{name: name})
	}
	return r
}

func one(meta map[string]string, name string) *gwclient.Result {
	r := result(meta)
	r.SetRef(ref{name: name})
	return r
}

// describe prints what a result has, in the order of keys.
func describe(r *gwclient.Result) string {
	var lines []string
	if r.Ref != nil {
		lines = append(lines, "ref "+r.Ref.(ref).name)
	}
	for _, k := range slices.Sorted(maps.Keys(r.Refs)) {
		lines = append(lines, k+" ref "+r.Refs[k].(ref).name)
	}
	for _, k := range slices.Sorted(maps.Keys(r.Metadata)) {
		lines = append(lines, k+" "+string(r.Metadata[k]))
	}
	return strings.Join(lines, "\n")
}

func TestAssemble(t *testing.T) {
	join := func(reports [][]byte, from []string) []byte {
		var list []string
		for i, r := range reports {
			list = append(list, string(r)+"@"+from[i])
		}
		return []byte(strings.Join(list, "+"))
	}
	ours := result(map[string]string{
		"containerimage.config/linux/amd64": "A", "containerimage.base.config/linux/amd64": "BA", "report": "ra", "layers.off": "no", "refs.platforms": "not these",
	}, "linux/amd64")
	node := one(map[string]string{"containerimage.config": "B", "report": "rb", "layers.off": "not this", "other": "x"}, "node")
	for _, c := range []struct {
		name    string
		build   Build
		ours    *gwclient.Result
		results []*gwclient.Result
		from    []string
		want    string
	}{
		{"two, one of them here", Build{Platforms: []string{"linux/arm64", "linux/amd64"}}, ours, []*gwclient.Result{node, nil}, []string{"n", ""}, `
linux/amd64 ref linux/amd64
linux/arm64 ref node
containerimage.base.config/linux/amd64 BA
containerimage.config/linux/amd64 A
containerimage.config/linux/arm64 B
layers.off no
other x
refs.platforms {"Platforms":[{"ID":"linux/arm64","Platform":{"architecture":"arm64","os":"linux"}},{"ID":"linux/amd64","Platform":{"architecture":"amd64","os":"linux"}}]}
report ra@+rb@n`},
		{"one, of a node", Build{Platforms: []string{"linux/arm64"}}, nil, []*gwclient.Result{node}, []string{"n"}, `
ref node
containerimage.config B
layers.off not this
other x
refs.platforms {"Platforms":[{"ID":"linux/arm64","Platform":{"architecture":"arm64","os":"linux"}}]}
report rb@n`},
		{"one, as an index", Build{Platforms: []string{"linux/arm64"}, Index: true}, nil, []*gwclient.Result{node}, []string{"n"}, `
linux/arm64 ref node
containerimage.config/linux/arm64 B
layers.off not this
other x
refs.platforms {"Platforms":[{"ID":"linux/arm64","Platform":{"architecture":"arm64","os":"linux"}}]}
report rb@n`},
	} {
		c.build.ReportKey, c.build.Merge = "report", join
		r, err := c.build.assemble(c.ours, c.results, c.from)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got, want := describe(r), strings.TrimPrefix(c.want, "\n"); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", c.name, got, want)
		}
	}
	b := Build{Platforms: []string{"linux/amd64"}}
	if _, err := b.assemble(result(nil, "linux/arm64"), make([]*gwclient.Result, 1), make([]string, 1)); err == nil {
		t.Error("a platform without a result is none")
	}
}

func TestSingle(t *testing.T) {
	r, err := single(result(map[string]string{"containerimage.config/linux/arm64": "C", "report": "r"}, "linux/arm64"), "linux/arm64")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := describe(r), "ref linux/arm64\ncontainerimage.config C\nreport r"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if _, err := single(result(nil, "linux/amd64"), "linux/arm64"); err == nil {
		t.Error("another platform's result is taken")
	}
}

// TestOptions keeps from nodes what is no business of theirs, and changes nothing of the engine's.
func TestOptions(t *testing.T) {
	b := Build{
		Options: client.SolveOpt{
			Frontend:      "dockerfile.v0",
			FrontendAttrs: map[string]string{"platform": "linux/amd64,linux/arm64", "image-resolve-mode": pb.AttrImageResolveModePreferLocal, "target": "app"},
			Exports:       []client.ExportEntry{{Type: client.ExporterImage, Attrs: map[string]string{"push": "true"}}},
			CacheImports:  []client.CacheOptionsEntry{{Type: "optbuild"}, {Type: "registry"}},
			CacheExports:  []client.CacheOptionsEntry{{Type: "registry"}},
			SharedKey:     "key",
		},
		Platforms: []string{"linux/amd64", "linux/arm64"},
		Layers:    map[string]string{"compression": "zstd"},
	}
	o := b.options("linux/arm64")
	if got := strings.Join(dictionary(o.FrontendAttrs), " "); got != "multi-platform=true platform=linux/arm64 target=app" {
		t.Errorf("attributes: %s", got)
	}
	if o.Frontend != "" || o.SharedKey != "key" || len(o.CacheExports) != 0 || len(o.CacheImports) != 1 || o.CacheImports[0].Type != "registry" {
		t.Errorf("got %+v", o)
	}
	if len(o.Exports) != 1 || o.Exports[0].Type != client.ExporterOCI || strings.Join(dictionary(o.Exports[0].Attrs), " ") != "compression=zstd tar=false" {
		t.Errorf("exports: %+v", o.Exports)
	}
	own := b.Own()
	if own.Frontend != "" || own.FrontendAttrs["platform"] != "linux/amd64,linux/arm64" || len(own.Exports) != 1 || own.Exports[0].Type != client.ExporterImage || len(own.CacheImports) != 2 {
		t.Errorf("the engine's: %+v", own)
	}
	if _, there := own.OCIStores[storeID]; !there || b.Options.OCIStores != nil {
		t.Error("the store is not offered to the engine, or to nodes as well")
	}
}

// TestCaches has a node write to a cache if it is the only one that would.
func TestCaches(t *testing.T) {
	types := func(list []client.CacheOptionsEntry) string {
		var names []string
		for _, e := range list {
			names = append(names, e.Type)
		}
		return strings.Join(names, " ")
	}
	b := Build{Options: client.SolveOpt{CacheExports: []client.CacheOptionsEntry{{Type: "optbuild"}, {Type: "registry"}, {Type: "inline"}}, FrontendAttrs: map[string]string{}}}
	for _, c := range []struct{ platforms, node, own string }{
		{"linux/arm64", "registry", "optbuild inline"},
		{"linux/arm64 linux/amd64", "", "optbuild registry inline"},
	} {
		b.Platforms = strings.Fields(c.platforms)
		if node, own := types(b.options("linux/arm64").CacheExports), types(b.Own().CacheExports); node != c.node || own != c.own {
			t.Errorf("%s: the node writes %q, the engine %q; want %q and %q", c.platforms, node, own, c.node, c.own)
		}
	}
}

func dictionary(m map[string]string) (list []string) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, k+"="+m[k])
	}
	return list
}

// TestRelay shows a node's steps under digests of their own, and ends those that a lost node has begun.
func TestRelay(t *testing.T) {
	var seen []*client.SolveStatus
	r := newRelay(func(s *client.SolveStatus) { seen = append(seen, s) }, "linux/arm64", "tcp://a:1")
	now := time.Now()
	a, b := digest.FromString("a"), digest.FromString("b")
	r.in <- &client.SolveStatus{Vertexes: []*client.Vertex{{Digest: a, Name: "A", Started: &now}, {Digest: b, Name: "B", Inputs: []digest.Digest{a}, Started: &now}}}
	r.in <- &client.SolveStatus{
		Vertexes: []*client.Vertex{{Digest: a, Name: "A", Started: &now, Completed: &now}},
		Logs:     []*client.VertexLog{{Vertex: b}}, Statuses: []*client.VertexStatus{{Vertex: b}}, Warnings: []*client.VertexWarning{{Vertex: b}},
	}
	close(r.in)
	r.end(&LostError{"tcp://a:1", errSilent})
	salted := Salt("tcp://a:1", b.String())
	var names []string
	for _, s := range seen {
		for _, v := range s.Vertexes {
			names = append(names, strings.TrimSpace(v.Name+" "+v.Error))
			if v.Digest == a || v.Digest == b || slices.Contains(v.Inputs, a) {
				t.Errorf("%s has the digest that it has everywhere", v.Name)
			}
		}
		for _, l := range s.Logs {
			if l.Vertex != salted || s.Statuses[0].Vertex != salted || s.Warnings[0].Vertex != salted {
				t.Error("a log, a status or a warning is of another vertex")
			}
		}
	}
	want := "[linux/arm64] on tcp://a:1, A, B, A, B context canceled, [linux/arm64] lost tcp://a:1: it does not answer any more"
	if got := strings.Join(names, ", "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
