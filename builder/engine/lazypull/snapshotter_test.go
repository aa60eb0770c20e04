package lazypull

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/stargz-snapshotter/estargz"
	bksnapshot "github.com/moby/buildkit/snapshot"
	"github.com/opencontainers/go-digest"
)

var (
	blob  = digest.FromString("blob")
	table = digest.FromString("table")
)

// labels are what BuildKit tells of a layer.
func labels() map[string]string {
	return map[string]string{
		targetLabel: "chain", refLabel: "localhost:5000/a:1", digestLabel + ".call": blob.String(), estargz.TOCJSONDigestAnnotation: table.String(), sessionLabel + "0": "s",
	}
}

// TestFromLabels: a layer is one only if all is there, and digests are ones.
func TestFromLabels(t *testing.T) {
	want := layer{Ref: "localhost:5000/a:1", Digest: blob, TOC: table}
	for _, tc := range []struct {
		name   string
		change func(map[string]string)
		want   layer
		ok     bool
	}{
		{"all", func(map[string]string) {}, want, true},
		{"digest without a suffix", func(l map[string]string) { delete(l, digestLabel+".call"); l[digestLabel] = blob.String() }, want, true},
		{"of a cache", func(l map[string]string) { l[CacheLabel] = "yes" }, layer{Ref: want.Ref, Digest: blob, TOC: table, Cache: true}, true},
		{"no table", func(l map[string]string) { delete(l, estargz.TOCJSONDigestAnnotation) }, layer{}, false},
		{"no reference", func(l map[string]string) { delete(l, refLabel) }, layer{}, false},
		{"no digest", func(l map[string]string) { delete(l, digestLabel+".call") }, layer{}, false},
		{"digest of another layer's label", func(l map[string]string) { delete(l, digestLabel+".call"); l[digestLabel+"x"] = blob.String() }, layer{}, false},
		{"bad digest", func(l map[string]string) { l[digestLabel+".call"] = "sha256:../../etc" }, layer{}, false},
		{"bad table", func(l map[string]string) { l[estargz.TOCJSONDigestAnnotation] = "sha256:1" }, layer{}, false},
	} {
		l := labels()
		tc.change(l)
		got, sessions, ok := fromLabels(l)
		if ok != tc.ok || ok && got != tc.want || !slices.Equal(sessions, []string{"s"}) {
			t.Errorf("%s: got %v, %v, %v", tc.name, got, sessions, ok)
		}
	}
}

// TestID: each blob with each table stands for itself.
func TestID(t *testing.T) {
	a := layer{Ref: "a", Digest: blob, TOC: table}
	if b := (layer{Ref: "b", Digest: blob, TOC: table, Cache: true}); a.id() != b.id() {
		t.Error("the same files from elsewhere are others")
	}
	for _, b := range []layer{{Ref: "a", Digest: table, TOC: table}, {Ref: "a", Digest: blob, TOC: blob}, {Ref: "a", Digest: table, TOC: blob}} {
		if a.id() == b.id() {
			t.Errorf("%v is %v", a, b)
		}
	}
}

// TestOffered: what is not wanted lazily, or can't be had so, is not mounted.
func TestOffered(t *testing.T) {
	t.Setenv(variable, "")
	cant := errors.New("can't")
	for _, tc := range []struct {
		name   string
		change func(*Puller, map[string]string)
		want   error // nil: any
	}{
		{"of no registry", func(p *Puller, _ map[string]string) { delete(p.known, "localhost:5000/a") }, nil},
		{"wanted whole", func(p *Puller, _ map[string]string) { p.whole = []string{"s"} }, nil},
		{"wanted whole, of a cache", func(p *Puller, l map[string]string) { l[CacheLabel] = "yes"; p.whole = []string{"s"} }, nil},
		{"without a table", func(_ *Puller, l map[string]string) { delete(l, estargz.TOCJSONDigestAnnotation) }, errWhole},
		{"switched off", func(*Puller, map[string]string) { t.Setenv(variable, never) }, errWhole},
		{"not here", func(p *Puller, _ map[string]string) {
			t.Setenv(variable, "")
			p.supported = func() error { return cant }
		}, cant},
		{"over a fast link", func(p *Puller, _ map[string]string) { p.link.rate = fast }, errFast},
	} {
		p, _ := puller(t)
		p.known = map[string]bool{"localhost:5000/a": true}
		p.supported = func() error { return nil }
		l := labels()
		tc.change(p, l)
		err := p.offered(l, func(layer) error { t.Errorf("%s: it is made", tc.name); return nil })
		if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v", tc.name, err)
		}
		if len(p.sources) > 0 {
			t.Errorf("%s: it was asked for", tc.name)
		}
	}
}

// TestSeen: credentials that come later are those of the layer that they came with; the newest are kept.
func TestSeen(t *testing.T) {
	p, all := puller(t, "a", "b")
	a, b := p.sources[all["a"].id()], p.sources[all["b"].id()]
	p.seen([]string{"1"}, all["a"].Digest)
	p.seen(nil, all["a"].Digest)
	if !slices.Equal(a.sessions, []string{"1"}) || len(b.sessions) > 0 {
		t.Errorf("sessions %v and %v", a.sessions, b.sessions)
	}
	for i := range 2 * maxSessions {
		p.seen([]string{fmt.Sprint("later", i)}, "")
	}
	if len(p.sessions) != maxSessions || p.sessions[0] != fmt.Sprint("later", 2*maxSessions-1) {
		t.Errorf("remembered %v", p.sessions)
	}
}

// plain is a snapshotter that notes what it is told to write.
type plain struct {
	bksnapshot.Snapshotter
	updated int
}

func (p *plain) Update(_ context.Context, i snapshots.Info, _ ...string) (snapshots.Info, error) {
	p.updated++
	return i, nil
}

func (p *plain) Stat(context.Context, string) (snapshots.Info, error) {
	return snapshots.Info{Labels: map[string]string{remoteLabel: blob.String()}}, nil
}

// TestUpdate: labels that BuildKit writes for the time of a call are not written, and their sessions are taken note of.
func TestUpdate(t *testing.T) {
	p, _ := puller(t)
	inner := &plain{}
	s := p.Snapshotter(inner, nil)
	fields := []string{}
	for k := range maps.Keys(labels()) {
		fields = append(fields, "labels."+k)
	}
	if _, err := s.Update(t.Context(), snapshots.Info{Labels: labels()}, fields...); err != nil || inner.updated > 0 || !slices.Equal(p.sessions, []string{"s"}) {
		t.Errorf("%v, written %d times, sessions %v", err, inner.updated, p.sessions)
	}
	if _, err := s.Update(t.Context(), snapshots.Info{}, "labels.containerd.io/gc.root"); err != nil || inner.updated != 1 {
		t.Errorf("%v, another label is written %d times", err, inner.updated)
	}
}

// TestStarting: while BuildKit reads its records, remote layers look whole; afterwards they don't.
func TestStarting(t *testing.T) {
	p, _ := puller(t)
	s := p.Snapshotter(&plain{}, nil)
	for _, starting := range []bool{true, false} {
		i, err := s.Stat(t.Context(), "k")
		if err != nil || (i.Labels[remoteLabel] == "") != starting {
			t.Errorf("starting %v: %v, %v", starting, i.Labels, err)
		}
		p.Started()
	}
}

// kept are leases that note what is added and deleted.
type kept struct {
	leases.Manager
	types []string
}

func (k *kept) AddResource(_ context.Context, _ leases.Lease, r leases.Resource) error {
	k.types = append(k.types, r.Type)
	return nil
}

func (k *kept) DeleteResource(_ context.Context, _ leases.Lease, r leases.Resource) error {
	k.types = append(k.types, r.Type)
	return errdefs.ErrNotFound
}

// TestLeases: what BuildKit thinks to be snapshots of another snapshotter are kept as what they are.
func TestLeases(t *testing.T) {
	k := &kept{}
	l := Leases(k, "overlayfs")
	for _, typ := range []string{"snapshots/stargz", "content", "snapshots/other"} {
		if err := l.AddResource(t.Context(), leases.Lease{}, leases.Resource{Type: typ}); err != nil {
			t.Error(err)
		}
		if err := l.DeleteResource(t.Context(), leases.Lease{}, leases.Resource{Type: typ}); !errdefs.IsNotFound(err) {
			t.Errorf("got %v", err)
		}
	}
	want := []string{"snapshots/overlayfs", "snapshots/overlayfs", "content", "content", "snapshots/other", "snapshots/other"}
	if !slices.Equal(k.types, want) {
		t.Errorf("got %v", k.types)
	}
}
