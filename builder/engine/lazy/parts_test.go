package lazy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/cache/metadata"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/snapshot"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/worker"
	"github.com/opencontainers/go-digest"
)

// named is a reference that is only partly here, or whose files are.
type named struct {
	cache.ImmutableRef
	name string
	here bool
	log  *[]string
	note string
}

func (n *named) ID() string { return n.name }

func (n *named) LayerChain() cache.RefList {
	return cache.RefList{&named{name: n.name, here: n.here, log: new([]string)}}
}

func (n *named) GetString(string) string { return n.note }

func (n *named) SetString(_, value, _ string) error {
	n.note = value
	return nil
}

func (n *named) Get(string) *metadata.Value {
	v, err := metadata.NewValue(!n.here)
	if err != nil {
		panic(err)
	}
	return v
}

func (n *named) Mount(context.Context, bool, session.Group) (snapshot.Mountable, error) {
	*n.log = append(*n.log, "mount "+n.name)
	return nil, nil
}

func (n *named) Release(context.Context) error {
	*n.log = append(*n.log, "release "+n.name)
	return nil
}

// twinsOf has twins of references with a name.
type twinsOf struct {
	cache.Manager
	name   string
	unread error
	log    *[]string
}

func (t twinsOf) OnTwins(_ context.Context, r cache.ImmutableRef, _ session.Group) cache.ImmutableRef {
	if r.ID() != t.name {
		return nil
	}
	return &named{name: "twin of " + t.name, here: true, log: t.log}
}

func (t twinsOf) OffTwins(_ context.Context, r cache.ImmutableRef, _ session.Group) cache.ImmutableRef {
	if r.ID() != "twin of "+t.name {
		return nil
	}
	return &named{name: t.name, here: true, log: t.log}
}

func (t twinsOf) Unread() func() error { return func() error { return t.unread } }

func (twinsOf) Noted(cache.ImmutableRef, session.Group) func() { return nil }

// reading is an operation that reads its inputs, also for its key.
type reading struct {
	solver.Op
	err error
}

func mountAll(ctx context.Context, inputs []solver.Result) error {
	for _, in := range inputs {
		if _, err := in.Sys().(*worker.WorkerRef).ImmutableRef.Mount(ctx, true, nil); err != nil {
			return err
		}
	}
	return nil
}

func (r reading) CacheMap(context.Context, solver.JobContext, int) (*solver.CacheMap, bool, error) {
	m := &solver.CacheMap{}
	m.Deps = append(m.Deps, struct {
		Selector          digest.Digest
		ComputeDigestFunc solver.ResultBasedCacheFunc
		PreprocessFunc    solver.PreprocessFunc
	}{ComputeDigestFunc: func(ctx context.Context, in solver.Result, _ session.Group) (digest.Digest, error) {
		return digest.Digest(in.Sys().(*worker.WorkerRef).ImmutableRef.ID()), errors.Join(mountAll(ctx, []solver.Result{in}), r.err)
	}})
	m.Deps = append(m.Deps, m.Deps[0])
	m.Deps[1].ComputeDigestFunc = nil
	return m, true, nil
}

func (r reading) Exec(ctx context.Context, _ solver.JobContext, inputs []solver.Result) ([]solver.Result, error) {
	return nil, errors.Join(mountAll(ctx, inputs), mountAll(ctx, inputs), r.err)
}

// TestReadsInParts: what an operation reads, for its key and when it runs, is read in parts if it was put off and there is a way; what was made for that is released. A reader that is asked as a parent is the reference itself.
func TestReadsInParts(t *testing.T) {
	for _, tc := range []struct {
		name string
		ref  func(*named) cache.ImmutableRef
		here bool
		want []string
		key  string
	}{
		{"base", wrappedRef, false, []string{"mount twin of base", "release twin of base", "mount twin of base", "mount twin of base", "release twin of base"}, "twin of base"},
		{"base", wrappedRef, true, []string{"mount base", "mount base", "mount base"}, "base"},
		{"base", plainRef, false, []string{"mount base", "mount base", "mount base"}, "base"},
		{"other", wrappedRef, false, []string{"mount other", "mount other", "mount other"}, "other"},
	} {
		var log []string
		m := Plain(twinsOf{name: "base", log: &log})
		in := worker.NewWorkerRefResult(tc.ref(&named{name: tc.name, here: tc.here, log: &log}), nil)
		op := NewFiles(nil, m).Op(reading{}, reading{})
		c, _, err := op.CacheMap(t.Context(), nil, 0)
		if err != nil || c.Deps[1].ComputeDigestFunc != nil {
			t.Fatal(c, err)
		}
		key, err := c.Deps[0].ComputeDigestFunc(t.Context(), in, nil)
		if err != nil || string(key) != tc.key {
			t.Errorf("the key is of %s, not of %s: %v", key, tc.key, err)
		}
		if _, err := op.Exec(t.Context(), nil, []solver.Result{in}); err != nil {
			t.Error(err)
		}
		if !slices.Equal(log, tc.want) {
			t.Errorf("%s, here %v: got %q\nwant %q", tc.name, tc.here, log, tc.want)
		}
	}
	r := &reader{ImmutableRef: Wrap(&named{name: "base", log: new([]string)})}
	if _, ok := Unwrap(r).(*named); !ok || !Pending(r) || Wrap(r) != cache.ImmutableRef(r) {
		t.Errorf("a reader as a parent is %T, pending %v", Unwrap(r), Pending(r))
	}
}

// wrappedRef and plainRef are ways in which an operation gets a reference.
func wrappedRef(n *named) cache.ImmutableRef { return Wrap(n) }
func plainRef(n *named) cache.ImmutableRef   { return n }

// TestUnread: an operation that could not read a layer fails with the reason, and not with what it made of it.
func TestUnread(t *testing.T) {
	for _, unread := range []error{nil, errors.New("the registry is gone")} {
		op := NewFiles(nil, Plain(twinsOf{unread: unread, log: new([]string)})).Op(reading{err: errors.New("input/output error")}, reading{})
		c, _, err := op.CacheMap(t.Context(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		in := worker.NewWorkerRefResult(&named{name: "x", log: new([]string)}, nil)
		_, keyErr := c.Deps[0].ComputeDigestFunc(t.Context(), in, nil)
		_, execErr := op.Exec(t.Context(), nil, []solver.Result{in})
		for _, err := range []error{keyErr, execErr} {
			if err == nil || !strings.Contains(err.Error(), "input/output error") || errors.Is(err, unread) != (unread != nil) {
				t.Errorf("unread %v: got %v", unread, err)
			}
		}
	}
}

// exporting is an exporter that reads what it exports.
type exporting struct {
	exporter.Exporter
	exporter.ExporterInstance
	err error
}

func (e exporting) Resolve(context.Context, int, map[string]string) (exporter.ExporterInstance, error) {
	return e, nil
}

func (e exporting) Export(ctx context.Context, src *exporter.Source, _ exporter.ExportBuildInfo) (map[string]string, exporter.FinalizeFunc, exporter.DescriptorReference, error) {
	_, err := src.Ref.Mount(ctx, true, nil)
	return nil, nil, nil, errors.Join(err, e.err)
}

// TestExporter: what is exported to files is read without twins where the build does without, and says what could not be read.
func TestExporter(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files bool
		want  []string
	}{{"twin of base", true, []string{"mount base", "release base"}}, {"twin of base", false, []string{"mount twin of base"}}, {"base", true, []string{"mount base"}}} {
		var log []string
		m := Plain(twinsOf{name: "base", unread: errors.New("the registry is gone"), log: &log})
		for _, fails := range []error{nil, errors.New("input/output error")} {
			log = nil
			i, err := Exporter(exporting{err: fails}, m, tc.files).Resolve(t.Context(), 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			src := &exporter.Source{Metadata: map[string][]byte{"a": nil}}
			src.SetRef(&named{name: tc.name, log: &log})
			_, _, _, err = i.Export(t.Context(), src, exporter.ExportBuildInfo{SessionID: "s"})
			if (err != nil) != (fails != nil) || err != nil && !strings.Contains(err.Error(), "the registry is gone") {
				t.Errorf("%s: %v", tc.name, err)
			}
			if !slices.Equal(log, tc.want) {
				t.Errorf("%s: got %q, want %q", tc.name, log, tc.want)
			}
		}
	}
}
