package mounts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/executor"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/worker"
	"github.com/moby/buildkit/worker/base"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/builder/engine/derived"
	"github.com/optbuild/optbuild/cache/mounts"
)

// Worker returns a worker whose steps have mounts that travel. inner makes the worker that solves one step, of one that has another executor and another cache manager.
func (k *Keeper) Worker(w *base.Worker, inner func(*base.Worker) worker.Worker) worker.Worker {
	return &keeping{inner(w), w, k, inner}
}

type keeping struct {
	worker.Worker
	base  *base.Worker
	k     *Keeper
	inner func(*base.Worker) worker.Worker
}

// ResolveOp returns what the inner worker resolves: stock ops, since provenance looks at their type.
func (w *keeping) ResolveOp(v solver.Vertex, s frontend.FrontendLLBBridge, sm *session.Manager, proxy worker.ProxyOpt) (solver.Op, error) {
	if op, ok := v.Sys().(*pb.Op); ok && op.GetExec() != nil {
		if list := cacheMounts(v, op.GetExec(), op.Platform); len(list) > 0 {
			st := &step{k: w.k, mounts: list, noCache: v.Options().IgnoreCache, context: seesContext(v)}
			return w.inner(derived.Worker(w.base, &sessionNoting{w.base.CacheMgr, st}, &stepExecutor{w.base.WorkerOpt.Executor, st})).ResolveOp(v, s, sm, proxy)
		}
	}
	return w.Worker.ResolveOp(v, s, sm, proxy)
}

// step is one exec that has cache mounts.
type step struct {
	k       *Keeper
	mounts  []mount
	noCache bool
	context bool // it may see files of the build's context

	mu      sync.Mutex
	session session.Group
}

// seesContext is true unless a step can't have seen anything of a context, of a repository or of a download.
func seesContext(v solver.Vertex) bool {
	seen := map[solver.Vertex]bool{}
	var look func(solver.Vertex) bool
	look = func(v solver.Vertex) bool {
		if seen[v] {
			return false
		}
		seen[v] = true
		op, ok := v.Sys().(*pb.Op)
		if !ok {
			return true
		}
		if s := op.GetSource(); s != nil && !strings.HasPrefix(s.Identifier, "docker-image://") && !strings.HasPrefix(s.Identifier, "oci-layout://") {
			return true
		}
		return slices.ContainsFunc(v.Inputs(), func(e solver.Edge) bool { return look(e.Vertex) })
	}
	return look(v)
}

// sessionNoting is a cache manager that notes for which sessions a step makes its snapshots: nothing else tells.
type sessionNoting struct {
	cache.Manager
	step *step
}

func (m *sessionNoting) New(ctx context.Context, parent cache.ImmutableRef, g session.Group, opts ...cache.RefOption) (cache.MutableRef, error) {
	m.step.mu.Lock()
	m.step.session = g
	m.step.mu.Unlock()
	return m.Manager.New(ctx, parent, g, opts...)
}

func (st *step) builds() []*Build {
	st.mu.Lock()
	g := st.session
	st.mu.Unlock()
	if st.k.o.Builds == nil || g == nil {
		return nil
	}
	return st.k.o.Builds(g)
}

type stepExecutor struct {
	executor.Executor
	step *step
}

// use is a mount that a step runs with.
type use struct {
	mount
	path   string // of its files, also when it is not mounted
	dir    *directory
	copied []string // directories of what was copied, if that has to be known
}

// Run restores what is new, and runs the step. Whatever goes wrong with a mount that travels costs a step that finds nothing in it, never the build.
func (e *stepExecutor) Run(ctx context.Context, id string, root executor.Mount, list []executor.Mount, process executor.ProcessInfo, started chan<- struct{}) (resourcestypes.Recorder, error) {
	st := e.step
	builds := st.builds()
	var uses []*use
	defer func() {
		for _, u := range uses {
			st.k.leave(u.dir)
		}
	}()
	for _, m := range st.mounts {
		i := slices.IndexFunc(list, func(x executor.Mount) bool {
			return x.Selector == m.Selector && (x.Dest == m.Dest || x.Dest == filepath.Join("/", process.Meta.Cwd, m.Dest))
		})
		if i < 0 {
			continue
		}
		u, err := st.prepare(ctx, m, list[i], builds)
		if u != nil {
			uses = append(uses, u)
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if errors.Is(err, errPart) {
				return nil, fmt.Errorf("cache mount %s: %w", m.id, err)
			}
			for _, b := range builds {
				b.warn("cache mount %s: %v", m.id, err)
			}
		}
	}
	rec, err := e.Executor.Run(ctx, id, root, list, process, started)
	if err == nil {
		for _, b := range builds {
			for _, u := range uses {
				b.note(u)
			}
		}
	}
	return rec, err
}

// errPart is the one error for which a step does not run: it would see a part of what another step left, which nobody ever left so.
var errPart = errors.New("what was restored in part can't be removed")

// prepare makes a mount ready for a step. The use that it returns, if any, counts as one also after an error.
func (st *step) prepare(ctx context.Context, m mount, x executor.Mount, builds []*Build) (u *use, err error) {
	visible, path, release, err := locate(ctx, x)
	if err != nil {
		return nil, err
	}
	defer release()
	if path == "" {
		if len(builds) > 0 {
			return nil, errors.New("it stays here: it can't be read when no step runs")
		}
		return nil, nil
	}
	u = &use{mount: m, path: path, dir: st.k.directory(path)}
	// Whoever comes next has to wait, so that none runs while it is restored.
	u.dir.filling.Lock()
	defer u.dir.filling.Unlock()
	first := st.k.enter(u.dir)
	if st.k.o.Copied != nil && st.context && !mounts.KindOf(m.Dest).Checked {
		if dirs, known := st.k.o.Copied(ctx); known {
			u.copied = dirs
		}
	}
	if !first {
		return u, nil
	}
	// Whatever became of the machine while something was restored here.
	if err := mounts.Recover(visible); err != nil {
		return u, fmt.Errorf("%w: %w", errPart, err)
	}
	if st.k.knows(path) {
		return u, nil
	}
	state := &mounts.State{}
	defer func() { err = errors.Join(err, st.k.remember(path, state)) }()
	for _, b := range builds {
		if st.noCache || m.stays != "" || b.off(m) {
			continue
		}
		restored, err := st.restore(ctx, b, u, visible)
		if restored != nil {
			state = restored
		}
		if restored != nil || err != nil {
			return u, err
		}
	}
	return u, nil
}

func (b *Build) off(m mount) bool { return b.Off != nil && b.Off(m.id) }

// Travels tells whether the mount with a key is restored and saved.
func (b *Build) Travels(k Key) bool { return b.Off == nil || !b.Off(k.id) }

// restore fills a new mount with what another machine left in it. It returns nil if there is nothing to be had.
func (st *step) restore(ctx context.Context, b *Build, u *use, dir string) (*mounts.State, error) {
	begun := time.Now()
	names, err := os.ReadDir(dir)
	if err != nil || len(names) > 0 {
		return nil, err // it is not new
	}
	ctx, blobs, stop := untilStalled(ctx, b.Source)
	defer stop()
	a, ok, err := b.Source.Find(ctx, u.key(b.Scope))
	if err != nil || !ok {
		return nil, err
	}
	if b.MaxAge > 0 && time.Since(a.Created) > b.MaxAge {
		return nil, nil
	}
	m, err := mounts.Fetch(ctx, blobs, a.Manifest, b.Limits)
	if err != nil {
		return nil, fmt.Errorf("not restored: %w", err)
	}
	if st.context && !mounts.KindOf(u.Dest).Checked {
		if why := st.outOfDate(ctx, blobs, u, a, m); why != "" {
			return nil, fmt.Errorf("not restored: %s", why)
		}
	}
	state, err := mounts.Restore(ctx, dir, m, blobs)
	if err != nil {
		if names, readErr := os.ReadDir(dir); readErr != nil || len(names) > 0 {
			return nil, fmt.Errorf("%w: %w", errPart, errors.Join(err, readErr))
		}
		return nil, fmt.Errorf("not restored: %w", err)
	}
	state.Manifest = a.Manifest
	bytes, entries := m.Size()
	logrus.Infof("cache mount %s: restored %d bytes in %d files and directories in %v", u.id, bytes, entries, time.Since(begun).Round(time.Millisecond))
	if st.k.o.Restored != nil {
		st.k.o.Restored(u.CacheOpt.ID)
	}
	return state, nil
}

// note says that a mount was used, so that it is saved at the end.
func (b *Build) note(u *use) {
	if b.off(u.mount) || u.Readonly {
		return
	}
	if u.stays != "" {
		b.warn("cache mount %s stays on this machine: %s", u.id, u.stays)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used == nil {
		b.used = map[string]*use{}
	}
	b.used[u.key(b.Scope)] = u
}
