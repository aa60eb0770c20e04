package unsynced

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/executor"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/worker"
	"github.com/moby/buildkit/worker/base"
	"github.com/moby/sys/user"
	"github.com/opencontainers/go-digest"

	"github.com/optbuild/optbuild/snapshot"
)

// fake is an executor that mounts all that it is given.
type fake struct {
	executor.Executor
	err error
}

var errFake = errors.New("exit code 1")

func (f fake) Run(ctx context.Context, _ string, root executor.Mount, mounts []executor.Mount, _ executor.ProcessInfo, _ chan<- struct{}) (resourcestypes.Recorder, error) {
	for _, m := range append(mounts, root) {
		if _, err := m.Src.Mount(ctx, m.Readonly); err != nil {
			return nil, err
		}
	}
	return nil, f.err
}

// place notes the context that it was mounted with.
type place struct{ ctx context.Context }

func (p *place) Mount(ctx context.Context, _ bool) (executor.MountableRef, error) {
	p.ctx = ctx
	return activeRef{}, nil
}

// TestRun: only the root file system is mounted without sync, and only where that is possible.
func TestRun(t *testing.T) {
	for _, supported := range []bool{true, false} {
		for _, err := range []error{nil, errFake} {
			var root, cache place
			e := steps{fake{err: err}, &Steps{func() bool { return supported }}}
			_, got := e.Run(t.Context(), "", executor.Mount{Src: &root}, []executor.Mount{{Src: &cache}}, executor.ProcessInfo{}, nil)
			if !errors.Is(got, err) {
				t.Errorf("error %v, want %v", got, err)
			}
			if changed := root.ctx != t.Context(); changed != supported {
				t.Errorf("the root file system: %v, supported: %v", changed, supported)
			}
			if cache.ctx != t.Context() {
				t.Error("another mount is meant, too")
			}
		}
	}
}

// TestMountAgain: an executor may mount the root file system more than once, as one that looks for a program in it does. A mutable snapshot keeps the mounts that it was asked for first.
func TestMountAgain(t *testing.T) {
	step := newActive(t)
	root := &rootfs{Mountable: step}
	for range 3 {
		ref, err := root.Mount(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		mountAndUnmount(t, ref)
	}
}

// TestFiles: file operations mount what they write to without sync, each action of one anew.
func TestFiles(t *testing.T) {
	for _, supported := range []bool{true, false} {
		for _, parent := range []cache.ImmutableRef{nil, immutable{}} {
			inner := &mutable{active: newActive(t)}
			ref, err := files{manager{ref: inner}, &Steps{func() bool { return supported }}}.New(t.Context(), parent, nil)
			if err != nil {
				t.Fatal(err)
			}
			m, err := ref.Mount(t.Context(), false, nil)
			if err != nil {
				t.Fatal(err)
			}
			if want := supported && parent != nil; (inner.ctx != t.Context()) != want {
				t.Errorf("supported %v, parent %v: mounted without sync is not %v", supported, parent, want)
			} else if want {
				for range 3 {
					mountAndUnmount(t, m)
				}
			}
		}
	}
}

// newActive is a mutable snapshot on another one.
func newActive(t *testing.T) *active {
	if os.Getuid() != 0 {
		t.Skip("only root may mount")
	}
	if err := snapshot.CanSkipSync(t.TempDir()); err != nil {
		t.Skipf("this machine can't: %v", err)
	}
	choice, err := snapshot.Choose(t.TempDir(), "overlayfs")
	if err != nil {
		t.Fatal(err)
	}
	l, err := choice.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if _, err := l.Prepare(t.Context(), "below", ""); err != nil {
		t.Fatal(err)
	}
	if err := l.Commit(t.Context(), "layer", "below"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Prepare(t.Context(), "step", "layer"); err != nil {
		t.Fatal(err)
	}
	return &active{layers: l, key: "step"}
}

// mountAndUnmount fails if ref is not mounted without sync.
func mountAndUnmount(t *testing.T, ref executor.MountableRef) {
	t.Helper()
	mounts, release, err := ref.Mount()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(mounts[0].Options, "volatile") {
		t.Fatalf("mounted with %v", mounts[0].Options)
	}
	at := t.TempDir()
	if err := mount.All(mounts, at); err != nil {
		t.Fatal(err)
	}
	if err := mount.UnmountAll(at, 0); err != nil {
		t.Fatal(err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
}

type immutable struct{ cache.ImmutableRef }

// mutable notes the context that it was mounted with.
type mutable struct {
	cache.MutableRef
	active *active
	ctx    context.Context
}

func (m *mutable) Mount(ctx context.Context, readonly bool, _ session.Group) (executor.MountableRef, error) {
	m.ctx = ctx
	return m.active.Mount(ctx, readonly)
}

type manager struct {
	cache.Manager
	ref cache.MutableRef
}

func (m manager) New(context.Context, cache.ImmutableRef, session.Group, ...cache.RefOption) (cache.MutableRef, error) {
	return m.ref, nil
}

// active is a mutable snapshot.
type active struct {
	layers snapshots.Snapshotter
	key    string
	mounts []mount.Mount
}

func (a *active) Mount(ctx context.Context, _ bool) (_ executor.MountableRef, err error) {
	if a.mounts == nil {
		a.mounts, err = a.layers.Mounts(ctx, a.key)
	}
	return activeRef{a}, err
}

type activeRef struct{ *active }

func (a activeRef) Mount() ([]mount.Mount, func() error, error) { return a.mounts, nil, nil }
func (activeRef) IdentityMapping() *user.IdentityMapping        { return nil }

// TestWorker: a vertex has the executor that it is marked for.
func TestWorker(t *testing.T) {
	var got string
	inner := func(w *base.Worker) worker.Worker {
		name := "as ever"
		if _, ok := w.WorkerOpt.Executor.(steps); ok {
			name = "unsynced"
		} else if _, ok := w.CacheMgr.(files); ok {
			name = "files"
		}
		return resolver{w, func() { got = name }}
	}
	w := New(t.TempDir()).Worker(&base.Worker{WorkerOpt: base.WorkerOpt{Executor: fake{}}}, inner)
	run, copied := &pb.Op{Op: &pb.Op_Exec{}}, &pb.Op{Op: &pb.Op_File{File: &pb.FileOp{}}}
	for want, v := range map[string]vertex{"as ever": {map[string]string{"optbuild.watch": "p"}, run}, "unsynced": {map[string]string{MarkKey: "1"}, run}, "files": {nil, copied}} {
		if _, err := w.ResolveOp(v, nil, nil, worker.ProxyOpt{}); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%v: %s, want %s", v.description, got, want)
		}
	}
}

type resolver struct {
	worker.Worker
	resolve func()
}

func (r resolver) ResolveOp(solver.Vertex, frontend.FrontendLLBBridge, *session.Manager, worker.ProxyOpt) (solver.Op, error) {
	r.resolve()
	return nil, nil
}

type vertex struct {
	description map[string]string
	op          *pb.Op
}

func (vertex) Digest() digest.Digest { return "" }
func (v vertex) Sys() any            { return v.op }
func (v vertex) Options() solver.VertexOptions {
	return solver.VertexOptions{Description: v.description}
}
func (vertex) Inputs() []solver.Edge { return nil }
func (vertex) Name() string          { return "" }
