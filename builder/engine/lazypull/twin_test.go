package lazypull

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/moby/buildkit/cache"
	cacheconfig "github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/cache/metadata"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/snapshot"
	"github.com/moby/buildkit/solver"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/engine/unpack"
	records "github.com/optbuild/optbuild/builder/record"
)

// stacked is a record of a layer on another one.
type stacked struct {
	cache.ImmutableRef
	below    *stacked
	layer    ocispecs.Descriptor
	here     bool // its files are
	fields   map[string]string
	handlers cache.DescHandlers
	released *int
}

// stack makes records of layers, which are known by the digests of their names; those that begin with "+" are here.
func stack(names ...string) (top *stacked) {
	handlers := cache.DescHandlers{}
	released := 0
	for _, name := range names {
		name, here := strings.CutPrefix(name, "+")
		r := &stacked{below: top, here: here, handlers: handlers, released: &released, layer: ocispecs.Descriptor{
			MediaType: ocispecs.MediaTypeImageLayerGzip, Digest: digest.FromString("blob of " + name), Size: 10, Annotations: map[string]string{},
		}}
		diffID, below := digest.FromString(name).String(), ""
		if top != nil {
			below = top.fields[records.Chain]
		}
		r.fields = map[string]string{records.DiffID: diffID, records.Chain: records.ChainOf(below, diffID, ""), records.Stored: "layer of " + name}
		handlers[r.layer.Digest] = &cache.DescHandler{Ref: "registry/base", SnapshotLabels: map[string]string{refLabel: "registry/base"}}
		top = r
	}
	return top
}

func (r *stacked) LayerChain() (list cache.RefList) {
	if r.below != nil {
		list = r.below.LayerChain()
	}
	return append(list, r)
}

func (r *stacked) Get(key string) *metadata.Value {
	value := any(!r.here)
	if key == records.ImageRefs {
		value = []string{"registry/base"}
	}
	v, err := metadata.NewValue(value)
	if err != nil {
		panic(err)
	}
	return v
}

func (r *stacked) GetRemotes(context.Context, bool, cacheconfig.RefConfig, bool, session.Group) ([]*solver.Remote, error) {
	remote := &solver.Remote{}
	for _, l := range r.LayerChain() {
		remote.Descriptors = append(remote.Descriptors, l.(*stacked).layer)
	}
	return []*solver.Remote{remote}, nil
}

func (r *stacked) ID() string                                     { return r.fields[records.Chain] }
func (r *stacked) Clone() cache.ImmutableRef                      { return r }
func (r *stacked) DescHandler(d digest.Digest) *cache.DescHandler { return r.handlers[d] }
func (r *stacked) GetString(field string) string                  { return r.fields[field] }
func (r *stacked) GetDescription() string                         { return "" }
func (r *stacked) GetLayerType() string                           { return r.fields["type"] }
func (r *stacked) GetCreatedAt() time.Time                        { return time.Unix(1, 0) }
func (r *stacked) SetString(field, value, _ string) error         { r.fields[field] = value; return nil }
func (r *stacked) Release(context.Context) error                  { *r.released++; return nil }
func (r *stacked) Extract(context.Context, session.Group) error   { return nil }

// stacking is a manager that makes such records, and notes what a snapshot is made on.
type stacking struct {
	cache.Manager
	fails bool
	on    *stacked
}

func (s *stacking) GetByBlob(_ context.Context, d ocispecs.Descriptor, parent cache.ImmutableRef, opts ...cache.RefOption) (cache.ImmutableRef, error) {
	if s.fails {
		return nil, errors.New("can't")
	}
	released := 0
	r := &stacked{layer: d, released: &released}
	below := ""
	if parent != nil {
		r.below = parent.(*stacked)
		below = r.below.fields[records.Chain]
	}
	for _, o := range opts {
		if h, ok := o.(cache.DescHandlers); ok {
			r.handlers = h
		}
	}
	diffID := d.Annotations["containerd.io/uncompressed"]
	r.fields = map[string]string{records.DiffID: diffID, records.Chain: records.ChainOf(below, diffID, d.Annotations[estargz.TOCJSONDigestAnnotation])}
	r.layer.Annotations = maps.Clone(d.Annotations)
	delete(r.layer.Annotations, estargz.TOCJSONDigestAnnotation) // BuildKit keeps those of the handler
	return r, nil
}

func (s *stacking) New(_ context.Context, parent cache.ImmutableRef, _ session.Group, _ ...cache.RefOption) (cache.MutableRef, error) {
	s.on = parent.(*stacked)
	return nil, errMade
}

// twinsFor has twins of layers, for the session "asks".
type twinsFor []string

func (twinsFor) Asked(sessions []string) bool  { return sessions[0] != "other" }
func (twinsFor) Chain([]string, string) string { return "" }
func (twinsFor) Mounted([]string, []string)    {}

func (names twinsFor) Twin(_ context.Context, _ []string, diffID string, d ocispecs.Descriptor) (Twin, bool) {
	for _, name := range names {
		if digest.FromString(name).String() == diffID {
			l := labels()
			delete(l, digestLabel+".call")
			l[refLabel], l[digestLabel], l[CacheLabel] = "registry/cache", blob.String(), "yes"
			maps.Copy(l, TwinLabels(d.Digest, 20))
			return Twin{TOC: table, Labels: l}, true
		}
	}
	return Twin{}, false
}

// TestTwins: a step runs on the twins of layers that are not here, if somebody wants that and nothing is in the way. Its records name the layers' own blobs, and go by the layers' own names.
func TestTwins(t *testing.T) {
	for _, tc := range []struct {
		name   string
		stack  []string
		change func(*Puller, *stacking, *stacked)
		gid    string
		twins  []bool // of each layer of what it runs on; nil: it is the parent
	}{
		{name: "the lowest", stack: []string{"base", "copy"}, twins: []bool{true, false}},
		{name: "in the middle", stack: []string{"+low", "base", "copy"}, twins: []bool{false, true, false}},
		{name: "no twin", stack: []string{"low", "copy"}},
		{name: "it is here", stack: []string{"+base", "copy"}},
		{name: "files above it are here", stack: []string{"base", "+copy"}},
		{name: "another build", stack: []string{"base", "copy"}, gid: "other"},
		{name: "a build that wants layers whole", stack: []string{"base", "copy"}, change: func(p *Puller, _ *stacking, _ *stacked) { p.whole = []string{"asks"} }},
		{name: "a fast link", stack: []string{"base", "copy"}, change: func(p *Puller, _ *stacking, _ *stacked) { p.link.rate = fast }},
		{name: "switched off", stack: []string{"base", "copy"}, change: func(*Puller, *stacking, *stacked) { t.Setenv(variable, never) }},
		{name: "merged layers", stack: []string{"base", "copy"}, change: func(_ *Puller, _ *stacking, top *stacked) { top.fields[records.Chain] = top.fields[records.DiffID] }},
		{name: "of Windows", stack: []string{"base", "copy"}, change: func(_ *Puller, _ *stacking, top *stacked) { top.fields["type"] = "windows" }},
		{name: "no record", stack: []string{"base", "copy"}, change: func(_ *Puller, s *stacking, _ *stacked) { s.fails = true }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv(variable, "")
			p := &Puller{supported: func() error { return nil }, twins: twinsFor{"base"}}
			inner, parent := &stacking{}, stack(tc.stack...)
			if tc.change != nil {
				tc.change(p, inner, parent)
			}
			gid := tc.gid
			if gid == "" {
				gid = "asks"
			}
			root := parent.ID()
			ctx := WithRoot(t.Context(), func(id string) { root = id })
			if _, err := Manager(inner, p, nil, &unpack.Early{}).New(ctx, parent, session.NewGroup(gid)); !errors.Is(err, errMade) {
				t.Fatal(err)
			}
			if root != inner.on.ID() {
				t.Errorf("it is said to run on %s, and runs on %s", root, inner.on.ID())
			}
			if tc.twins == nil {
				if inner.on != parent {
					t.Errorf("it runs on %v", inner.on)
				}
				return
			}
			own, list := parent.LayerChain(), inner.on.LayerChain()
			if len(list) != len(own) {
				t.Fatalf("%d layers, not %d", len(list), len(own))
			}
			nothing := func(string) string { return "" }
			want, got := records.Chains(own, nothing), records.Chains(list, nothing)
			twinned := false
			for i := range list {
				a, b := own[i].(*stacked), list[i].(*stacked)
				twinned = twinned || tc.twins[i]
				h := b.DescHandler(b.layer.Digest)
				if a.layer.Digest != b.layer.Digest || hasTable(b.layer) || got[i] != want[i] || h.Ref != "registry/base" || hasTwin(h) != tc.twins[i] || (a.ID() != b.ID()) != twinned || b.GetString(records.Stored) != a.GetString(records.Stored) {
					t.Errorf("layer %d: %+v is %+v, %q is %q, handler %+v", i, a, b, want[i], got[i], h)
				}
				if !tc.twins[i] {
					continue
				}
				l, _, ok := fromLabels(h.SnapshotLabels)
				if l = p.believed(l); !ok || l != (layer{Ref: "registry/cache", Digest: blob, TOC: table, Cache: true, Of: a.layer.Digest, Bytes: 20}) || l.recorded() != a.layer.Digest {
					t.Errorf("the twin is %+v", l)
				}
			}
			if hasTwin(parent.DescHandler(own[0].(*stacked).layer.Digest)) {
				t.Error("the layers' own handlers were changed")
			}
		})
	}
}

// mutable is what a step writes to.
type mutable struct{ cache.MutableRef }

func (mutable) Mount(context.Context, bool, session.Group) (snapshot.Mountable, error) {
	return nil, nil
}

// making is a manager that makes one on anything.
type making struct{ stacking }

func (m *making) New(context.Context, cache.ImmutableRef, session.Group, ...cache.RefOption) (cache.MutableRef, error) {
	return mutable{}, nil
}

// hearing is twinsFor nothing that is told of layers.
type hearing struct {
	twinsFor
	told []string
}

func (h *hearing) Mounted(_ []string, layers []string) { h.told = append(h.told, layers...) }

// TestMounted: when a step has its root mounted, its layers are told of that are of images, once, and where somebody wants to know. What only writes upon them, as a COPY, tells nothing.
func TestMounted(t *testing.T) {
	t.Setenv(variable, never)
	run := func(ctx context.Context, r cache.MutableRef) {
		root := executor.Mount{Src: mountable(func(ctx context.Context) { _, _ = r.Mount(ctx, false, nil) })}
		if _, err := (&Puller{}).Executor(mounting{run: func(context.Context) error { return nil }}).Run(ctx, "", root, nil, executor.ProcessInfo{}, nil); err != nil {
			t.Error(err)
		}
	}
	copies := func(ctx context.Context, r cache.MutableRef) { _, _ = r.Mount(ctx, false, nil) }
	for _, here := range []string{"", "+"} {
		parent := stack(here+"low", here+"base", here+"run")
		list := parent.LayerChain()
		for _, l := range list[:2] {
			delete(l.(*stacked).fields, records.Stored)
		}
		for _, tc := range []struct {
			name string
			gid  string
			does func(context.Context, cache.MutableRef)
			want []string
		}{{"a RUN", "asks", run, []string{list[0].ID(), list[1].ID()}}, {"a RUN of another build", "other", run, nil}, {"a COPY", "asks", copies, nil}} {
			heard := &hearing{}
			p := &Puller{supported: func() error { return nil }, twins: heard}
			r, err := Manager(&making{}, p, nil, &unpack.Early{}).New(t.Context(), parent, session.NewGroup(tc.gid))
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				tc.does(t.Context(), r)
			}
			if !slices.Equal(heard.told, tc.want) {
				t.Errorf("%s, layers %q: told of %q, want %q", tc.name, here, heard.told, tc.want)
			}
		}
	}
}

// mountable calls a function when it is mounted.
type mountable func(context.Context)

func (m mountable) Mount(ctx context.Context, _ bool) (executor.MountableRef, error) {
	m(ctx)
	return mountedRef{}, nil
}

// TestBelieved: annotations of images become labels, too. None of them makes a layer a twin.
func TestBelieved(t *testing.T) {
	l := labels()
	maps.Copy(l, TwinLabels(blob, 20))
	p := &Puller{}
	for _, cached := range []bool{false, true} {
		if cached {
			l[CacheLabel] = "yes"
		}
		got, _, _ := fromLabels(l)
		if got = p.believed(got); got.Of != "" || got.Bytes != 0 || got.recorded() != blob {
			t.Errorf("believed %+v", got)
		}
	}
}

// TestOffTwins: a build that asks for no cache runs on the layers themselves, also what an earlier one has made on twins; one that asks goes on.
func TestOffTwins(t *testing.T) {
	t.Setenv(variable, "")
	p := &Puller{supported: func() error { return nil }, twins: twinsFor{"base"}}
	inner, parent := &stacking{}, stack("+low", "base", "copy")
	m := Manager(inner, p, nil, &unpack.Early{})
	on := func(r *stacked, gid string) *stacked {
		if _, err := m.New(t.Context(), r, session.NewGroup(gid)); !errors.Is(err, errMade) {
			t.Fatal(err)
		}
		return inner.on
	}
	twins := on(parent, "asks")
	if twins.ID() == parent.ID() {
		t.Fatal("it does not run on twins")
	}
	run := &stacked{below: twins, here: true, handlers: twins.handlers, released: new(int), layer: ocispecs.Descriptor{Digest: digest.FromString("blob of run")}}
	diffID := digest.FromString("run").String()
	run.fields = map[string]string{records.DiffID: diffID, records.Chain: records.ChainOf(twins.ID(), diffID, "")}
	if got := on(run, "asks"); got != run {
		t.Errorf("a build that asks goes on with %v", got)
	}
	got := on(run, "other")
	if want := records.ChainOf(parent.ID(), diffID, ""); got.ID() != want {
		t.Errorf("a build that does not ask runs on %s, not on %s", got.ID(), want)
	}
	for _, l := range got.LayerChain() {
		if l := l.(*stacked); hasTwin(l.DescHandler(l.layer.Digest)) || l.GetString(records.Name) != "" {
			t.Errorf("layer %+v is still read by a twin", l)
		}
	}
	if got := on(parent, "other"); got != parent {
		t.Errorf("without twins it runs on %v", got)
	}
	inner.fails = true
	if got := on(run, "other"); got != run {
		t.Errorf("where it can't be done it runs on %v", got)
	}
}
