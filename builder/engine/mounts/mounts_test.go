package mounts

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/cache/mounts"
)

// filled returns a store with an archive of what a step left in the mount "/c".
func filled(t *testing.T) *directoryStore {
	t.Helper()
	s := newDirectoryStore(t)
	a := newMachine(t, s)
	dir := a.mount("1")
	if err := a.step(run("/c", "/c", false), dir, writes(filepath.Join(dir, "f"), "from a")); err != nil {
		t.Fatal(err)
	}
	a.save(s)
	if s.adds != 1 {
		t.Fatalf("%d archives; %q", s.adds, a.said)
	}
	return s
}

func TestTravels(t *testing.T) {
	s := filled(t)
	b := newMachine(t, s)
	dir := b.mount("7")
	if got := b.seen(run("/c", "/c", false), dir); got != "f=from a" {
		t.Errorf("the step sees %q; %q", got, b.said)
	}
	b.save(s) // it left what it found
	if s.adds != 1 {
		t.Errorf("%d archives", s.adds)
	}
	if err := b.step(run("/c", "/c", false), dir, writes(filepath.Join(dir, "g"), "from b")); err != nil {
		t.Fatal(err)
	}
	b.save(s)
	c := newMachine(t, s)
	if got := c.seen(run("/c", "/c", false), c.mount("1")); got != "f=from a g=from b" || s.adds != 2 {
		t.Errorf("the step sees %q; %d archives", got, s.adds)
	}
	if len(c.said) > 0 {
		t.Errorf("%q", c.said)
	}
}

// Only the same mount is restored, and only where it is new.
func TestStays(t *testing.T) {
	s := filled(t)
	other := run("/c", "/c", false)
	other.op.Platform = &pb.Platform{OS: "linux", Architecture: "arm64"}
	owned := run("/c", "/c", false)
	owned.op.GetExec().Mounts[1].Input, owned.op.GetExec().Mounts[1].Selector = 1, "/cache"
	owned.inputs = append(owned.inputs, made("app"))
	fromFiles := run("/c", "/c", false)
	fromFiles.op.GetExec().Mounts[1].Input = 0
	noCache := run("/c", "/c", false)
	noCache.options.IgnoreCache = true
	tests := map[string]struct {
		step   *vertex
		before func(m *machine, dir string)
		want   string
	}{
		"the same":             {step: run("/c", "/c", false), want: "f=from a"},
		"another target":       {step: run("/c", "/d", false), want: "f=from a"},
		"another id":           {step: run("/d", "/c", false)},
		"another platform":     {step: other},
		"another owner":        {step: owned},
		"it starts from files": {step: fromFiles},
		"no cache":             {step: noCache},
		"another scope":        {step: run("/c", "/c", false), before: func(m *machine, _ string) { m.build.Scope = "x" }},
		"switched off":         {step: run("/c", "/c", false), before: func(m *machine, _ string) { m.build.Off = func(id string) bool { return id == "/c" } }},
		"not empty": {step: run("/c", "/c", false), want: "mine=x", before: func(m *machine, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "mine"), []byte("x"), 0o644); err != nil {
				m.t.Fatal(err)
			}
		}},
		"not new": {step: run("/c", "/c", false), before: func(m *machine, dir string) {
			none := m.build
			m.build = m.newBuild(newDirectoryStore(m.t))
			if got := m.seen(run("/c", "/c", false), dir); got != "" {
				m.t.Errorf("%q", got)
			}
			m.build = none
		}},
		"too old": {step: run("/c", "/c", false), before: func(m *machine, _ string) {
			m.build.MaxAge = time.Nanosecond
		}},
	}
	for _, what := range slices.Sorted(maps.Keys(tests)) {
		tt := tests[what]
		m := newMachine(t, s)
		dir := m.mount("1")
		if strings.HasPrefix(what, "another owner") || what == "it starts from files" {
			if err := os.MkdirAll(filepath.Join(dir, "cache"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if tt.before != nil {
			tt.before(m, dir)
		}
		if sel := tt.step.op.GetExec().Mounts[1].Selector; sel != "" {
			if err := m.step(tt.step, dir, nil); err != nil {
				t.Fatal(err)
			}
			if got := m.has(filepath.Join(dir, sel)); got != tt.want {
				t.Errorf("%s: %q", what, got)
			}
			continue
		}
		if what == "it starts from files" {
			if err := os.Remove(filepath.Join(dir, "cache")); err != nil {
				t.Fatal(err)
			}
		}
		if got := m.seen(tt.step, dir); got != tt.want {
			t.Errorf("%s: the step sees %q, not %q", what, got, tt.want)
		}
	}
}

// A mount that another step is using is not touched, in neither direction.
func TestInUse(t *testing.T) {
	s := filled(t)
	m := newMachine(t, s)
	dir := m.mount("1")
	none := m.build
	m.build = m.newBuild(newDirectoryStore(t))
	err := m.step(run("/c", "/c", false), dir, func() error {
		m.build = none
		if got := m.seen(run("/c", "/c", false), dir); got != "" {
			t.Errorf("restored under a step: %q", got)
		}
		m.save(s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.adds != 1 {
		t.Error("saved under a step")
	}
}

// Steps that begin at the same time: one restores, and none runs before that is done.
func TestTogether(t *testing.T) {
	s := filled(t)
	m := newMachine(t, s)
	dir := m.mount("1")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := m.step(run("/c", "/c", false), dir, func() error {
				if b, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || string(b) != "from a" {
					return fmt.Errorf("the step sees %q, %w", b, err)
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// A step that fails leaves what no step has left.
func TestFailedStep(t *testing.T) {
	s := newDirectoryStore(t)
	m := newMachine(t, s)
	dir := m.mount("1")
	if err := m.step(run("/c", "/c", false), dir, func() error { return errors.New("exit 1") }); err == nil {
		t.Fatal("no error")
	}
	m.save(s)
	if s.adds != 0 {
		t.Error("saved")
	}
}

func TestEmptyMount(t *testing.T) {
	s := newDirectoryStore(t)
	m := newMachine(t, s)
	if err := m.step(run("/c", "/c", false), m.mount("1"), nil); err != nil {
		t.Fatal(err)
	}
	m.save(s)
	if s.adds != 0 {
		t.Error("saved")
	}
}

func TestReadOnlyMount(t *testing.T) {
	s := newDirectoryStore(t)
	m := newMachine(t, s)
	v := run("/c", "/c", false)
	v.op.GetExec().Mounts[1].Readonly = true
	dir := m.mount("1")
	if err := m.step(v, dir, writes(filepath.Join(dir, "f"), "x")); err != nil {
		t.Fatal(err)
	}
	m.save(s)
	if s.adds != 0 {
		t.Error("saved")
	}
}

// Whatever is wrong with an archive or the store: the step runs, with an empty mount, and the user is told once.
func TestDamaged(t *testing.T) {
	for what, damage := range map[string]func(s *directoryStore){
		"the store fails": func(s *directoryStore) { s.fails = errors.New("429 too many requests") },
		"no manifest": func(s *directoryStore) {
			for _, a := range s.found {
				_ = s.Delete(context.Background(), a.Manifest.Digest)
			}
		},
		"no pack": func(s *directoryStore) {
			for _, a := range s.found {
				_ = s.Delete(context.Background(), a.Holds[0].Digest)
			}
		},
		"another manifest": func(s *directoryStore) {
			for k, a := range s.found {
				a.Manifest = a.Holds[0]
				s.found[k] = a
			}
		},
	} {
		s := filled(t)
		damage(s)
		m := newMachine(t, s)
		if got := m.seen(run("/c", "/c", false), m.mount("1")); got != "" || len(m.said) != 1 {
			t.Errorf("%s: the step sees %q; %q", what, got, m.said)
		}
	}
}

// hanging is a store whose blobs never come.
type hanging struct{ *directoryStore }

type hangingReader struct {
	content.ReaderAt
	ctx context.Context
}

func (s hanging) ReaderAt(ctx context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	ra, err := s.directoryStore.ReaderAt(ctx, d)
	return hangingReader{ra, ctx}, err
}

func (r hangingReader) ReadAt([]byte, int64) (int, error) {
	<-r.ctx.Done()
	return 0, r.ctx.Err()
}

// A registry that sends nothing any more: the step goes on with an empty mount.
func TestStalled(t *testing.T) {
	before := stallTime
	stallTime = 10 * time.Millisecond
	t.Cleanup(func() { stallTime = before })
	m := newMachine(t, hanging{filled(t)})
	if got := m.seen(run("/c", "/c", false), m.mount("1")); got != "" || len(m.said) != 1 || !strings.Contains(m.said[0], errStalled.Error()) {
		t.Errorf("the step sees %q; %q", got, m.said)
	}
}

// The machine went down in the middle of a restore.
func TestInterrupted(t *testing.T) {
	m := newMachine(t, newDirectoryStore(t))
	dir := m.mount("1")
	for _, p := range []string{mounts.Aside, "part"} {
		if err := os.Mkdir(filepath.Join(dir, p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got := m.seen(run("/c", "/c", false), dir); got != "" {
		t.Errorf("the step sees %q", got)
	}
}

func TestTooLarge(t *testing.T) {
	s := newDirectoryStore(t)
	m := newMachine(t, s)
	m.build.TotalBytes = 10
	for _, n := range []string{"1", "2", "3"} {
		dir := m.mount(n)
		if err := m.step(run("/c"+n, "/c", false), dir, writes(filepath.Join(dir, "f"), "seven b")); err != nil {
			t.Fatal(err)
		}
	}
	m.save(s)
	if s.adds != 1 || len(m.said) != 2 {
		t.Errorf("%d archives, %q", s.adds, m.said)
	}
}

// What is known of mounts goes with them.
func TestForget(t *testing.T) {
	m := newMachine(t, newDirectoryStore(t))
	kept, gone := m.mount("1"), m.mount("2")
	for _, dir := range []string{kept, gone} {
		m.seen(run("/c", "/c", false), dir)
	}
	if err := os.RemoveAll(filepath.Dir(gone)); err != nil {
		t.Fatal(err)
	}
	k, err := New(m.k.o)
	if err != nil {
		t.Fatal(err)
	}
	if !k.knows(kept) || k.knows(gone) {
		t.Errorf("%v, %v", k.knows(kept), k.knows(gone))
	}
}

func TestSeesContext(t *testing.T) {
	if seesContext(run("/c", "/c", false)) {
		t.Error("an image is taken for a context")
	}
	for _, id := range []string{"local://context", "https://example.com/x.tar", "git://example.com/x"} {
		v := run("/c", "/c", false)
		v.inputs[0] = solver.Edge{Vertex: &vertex{op: &pb.Op{Op: &pb.Op_File{File: &pb.FileOp{}}}, inputs: []solver.Edge{source(id)}}}
		if !seesContext(v) {
			t.Errorf("%s is not seen", id)
		}
	}
}
