package lazy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/cache/contenthash"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/snapshot"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/worker"
	"github.com/moby/sys/user"

	"github.com/optbuild/optbuild/builder/engine/lazypull"
)

// job is the group of sessions of a step.
type job struct{ solver.JobContext }

func (job) SessionIterator() session.Iterator { return nil }

// inSolver is a context of the solver's.
func inSolver(ctx context.Context) context.Context {
	return solver.WithCacheOptGetter(ctx, func(bool, ...any) map[any]any { return nil })
}

// TestRef: steps read in parts what was not fetched, and nobody else does: exports, what is written upon it, what is compressed beside the steps. What was made for that is held once, and released in the end.
func TestRef(t *testing.T) {
	for _, tc := range []struct {
		name     string
		ref      string
		solver   bool
		g        session.Group
		writable bool
		want     []string
	}{
		{"a step", "base", true, job{}, false, []string{"mount twin of base", "release twin of base", "mount twin of base", "release twin of base", "release base"}},
		{"a step of a build without a cache", "twin of base", true, job{}, false, []string{"mount base", "release base", "mount base", "release base", "release twin of base"}},
		{"a step, no twin", "other", true, job{}, false, []string{"mount other", "mount other", "release other"}},
		{"an export", "base", false, session.NewGroup("s"), false, []string{"mount base", "mount base", "release base"}},
		{"beside the steps", "base", false, job{}, false, []string{"mount base", "mount base", "release base"}},
		{"for writing", "base", true, job{}, true, []string{"mount base", "mount base", "release base"}},
	} {
		var log []string
		f := NewFiles(nil, Plain(twinsOf{name: "base", log: &log}))
		r := f.Wrap(&named{name: tc.ref, log: &log})
		ctx := t.Context()
		if tc.solver {
			ctx = inSolver(ctx)
		}
		for range 2 {
			if _, err := r.Mount(ctx, !tc.writable, tc.g); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Release(ctx); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(log, tc.want) {
			t.Errorf("%s: got %q\nwant %q", tc.name, log, tc.want)
		}
	}
}

// TestReadWhole: what is mounted as a whole, and by whose content a step is known, is read in parts once, and fetched when it is needed again.
func TestReadWhole(t *testing.T) {
	for _, tc := range []struct {
		name     string
		hashed   bool
		selector string
		again    string
	}{
		{"as a whole", true, "", "mount base"},
		{"as a whole, not known by its content", false, "/", "mount twin of base"},
		{"a part", true, "etc", "mount twin of base"},
	} {
		var log []string
		f, base := NewFiles(nil, Plain(twinsOf{name: "base", log: &log})), &named{name: "base", log: &log}
		mount := func(r cache.ImmutableRef) string {
			if tc.hashed {
				r.GetEqualMutable()
			}
			log = nil
			if _, err := r.Mount(lazypull.ForStep(inSolver(t.Context()), tc.selector), true, job{}); err != nil {
				t.Fatal(err)
			}
			return log[len(log)-1]
		}
		first := f.Wrap(base)
		if got := mount(first); got != "mount twin of base" {
			t.Errorf("%s: %s", tc.name, got)
		}
		if mount(first); !slices.Contains(log, "mount twin of base") {
			t.Errorf("%s, in the same build: %s", tc.name, log)
		}
		if got := mount(f.Wrap(base)); got != tc.again {
			t.Errorf("%s: the next build has %s, not %s", tc.name, got, tc.again)
		}
	}
}

// directory is a reference whose files are in one, with what is noted of it.
type directory struct {
	*named
	dir   string
	notes *atomic.Int32
}

func (d directory) Mount(context.Context, bool, session.Group) (snapshot.Mountable, error) {
	return shown(d.dir), nil
}

func (d directory) GetEqualMutable() (cache.RefMetadata, bool) { return nil, false }
func (d directory) GetExternal(string) ([]byte, error)         { return nil, os.ErrNotExist }

func (d directory) SetExternal(string, []byte) error {
	d.notes.Add(1)
	return nil
}

type shown string

func (s shown) Mount() ([]mount.Mount, func() error, error) {
	return []mount.Mount{{Type: "bind", Source: string(s), Options: []string{"rbind"}}}, func() error { return nil }, nil
}

func (shown) IdentityMapping() *user.IdentityMapping { return nil }

// directoriesOf has other directories of the same names.
type directoriesOf struct {
	twinsOf
	on cache.ImmutableRef
}

func (d *directoriesOf) OnTwins(context.Context, cache.ImmutableRef, session.Group) cache.ImmutableRef {
	return d.on
}

// TestKnownByParts: what BuildKit wants to know a step by is read in parts. It looks again each time, since the parts may be others then, and nothing of it is noted with the record.
func TestKnownByParts(t *testing.T) {
	dir := func(content string) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	of := func(content string) directory {
		return directory{named: &named{name: content, log: new([]string)}, dir: dir(content), notes: &atomic.Int32{}}
	}
	sum := func(r cache.ImmutableRef) string {
		d, err := contenthash.Checksum(inSolver(t.Context()), r, "/f", contenthash.ChecksumOpts{}, job{})
		if err != nil {
			t.Fatal(err)
		}
		return d.String()
	}
	m := &directoriesOf{}
	own := of("own")
	r := NewFiles(nil, Plain(m)).Wrap(own)
	for _, content := range []string{"one", "another", "own"} {
		if m.on = of(content); content == "own" {
			m.on = nil
		}
		want := sum(of(content))
		if got := sum(r); got != want {
			t.Errorf("%s: known by %s, not by %s", content, got, want)
		}
	}
	md, ok := r.GetEqualMutable()
	if !ok || md.ID() == own.ID() {
		t.Errorf("it is noted with %v", md)
	}
	if err := md.SetExternal("x", nil); err != nil || own.notes.Load() > 0 {
		t.Errorf("%d notes, %v", own.notes.Load(), err)
	}

	// Where nothing was found it stays so, and is noted.
	m.on = nil
	r = NewFiles(nil, Plain(m)).Wrap(of("plain"))
	want := sum(of("plain"))
	if got := sum(r); got != want {
		t.Errorf("known by %s, not by %s", got, want)
	}
	m.on = of("late")
	if md, ok := r.GetEqualMutable(); ok {
		t.Errorf("it is noted with %v", md)
	}
	if got := sum(r); got != want {
		t.Errorf("late, it is known by %s, not by %s", got, want)
	}
}

// loaded is a worker with what an earlier build has left.
type loaded struct {
	worker.Worker
	ref cache.ImmutableRef
}

func (l loaded) LoadRef(context.Context, string, bool) (cache.ImmutableRef, error) { return l.ref, nil }

// extracted is a reference that says when it is fetched.
type extracted struct{ *named }

var errFetched = errors.New("fetched")

func (extracted) Extract(context.Context, session.Group) error { return errFetched }

// TestLoading: what an earlier build has left, and has not fetched, is fetched late for those that ask for a shared cache, at once for others. Steps begin on it as ever.
func TestLoading(t *testing.T) {
	asks := session.NewGroup("asks")
	asked := func(g session.Group) bool { return g == asks }
	load := func(r cache.ImmutableRef) cache.ImmutableRef {
		got, err := Loading(loaded{ref: r}, Plain(twinsOf{log: new([]string)}), asked).LoadRef(t.Context(), "id", false)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := load(nil); got != nil {
		t.Errorf("nothing became %v", got)
	}
	here := &named{name: "base", here: true}
	if got := load(here); got != cache.ImmutableRef(here) {
		t.Errorf("what is here became %v", got)
	}
	part := extracted{&named{name: "base"}}
	r := load(part)
	if r.Extract(t.Context(), asks) != nil || !errors.Is(r.Extract(t.Context(), session.NewGroup("other")), errFetched) {
		t.Error("it is not fetched when it should be")
	}
	if Pending(r) || !lazypull.Partial(r) || Unwrap(r) != cache.ImmutableRef(part) {
		t.Errorf("it is pending: %v, not fetched: %v, %v", Pending(r), lazypull.Partial(r), Unwrap(r))
	}
}
