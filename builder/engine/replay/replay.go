// Package replay lets a RUN stand in for itself: a step whose layer was stored, and of which everything that it looked at is as it was then, is not run again.
//
//	ResolveOp ──> a stock *ops.ExecOp with two wrappers of ours
//	                cache.Manager   notes which directories the step's root file system consists of
//	                executor        looks for a stored trace ──> holds: the new snapshot becomes an alias of the stored layer
//	                                                          └> none holds: runs the step over views of the copied layers, stores trace and layer
//
// What comes in is a vertex of BuildKit's solver that the frontend has marked ([MarkKey]); what goes out is the op that solves it. Everything else of BuildKit is as
// it was: the step keeps its cache key, its dependants theirs, and BuildKit's own cache is asked first. The package knows nothing of Dockerfiles.
//
// The README tells why a replayed layer is what the step would have made.
package replay

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/llbsolver/linuxresources"
	"github.com/moby/buildkit/solver/llbsolver/ops"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/worker"
	"github.com/moby/buildkit/worker/base"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/builder/engine/lazy"
	"github.com/optbuild/optbuild/builder/engine/lazypull"
	"github.com/optbuild/optbuild/builder/trace/store"
	"github.com/optbuild/optbuild/builder/trace/view"
	"github.com/optbuild/optbuild/builder/trace/view/viewer"
	"github.com/optbuild/optbuild/snapshot"
)

// MarkKey is the key in a vertex's description that asks for its RUN to be watched and replayed, or its COPY to keep times. The value names the project that the
// vertex belongs to, so that equal instructions of different projects are told apart.
const MarkKey = "optbuild.watch"

// ArgsKey is the key in a RUN's description under which the frontend names the build arguments that are in its environment, separated by commas.
const ArgsKey = "optbuild.args"

// Replayer watches and replays steps. Its methods may be called concurrently.
type Replayer struct {
	layers *snapshot.Layers
	traces *store.Store
	views  string // directory of the views' mount points
	times  string // directory of what COPYs made last, see times.go
	debug  debug

	links sync.Map // whether directories of layers have hard links: bool by path

	log    string     // of the steps that used cache mounts, see caches.go
	caches sync.Mutex // guards it

	worker *base.Worker // set before anything is solved

	viewer    viewer.Process
	supported func() error

	others Elsewhere   // nil: this machine is alone
	files  *lazy.Files // as others

	start func(func(context.Context)) bool // something that goes on beside the steps
	stop  func()                           // all that was started
}

// New returns a Replayer that keeps its traces in dir, which it creates, beside the layers of a snapshotter. It removes mount points that a killed engine left.
func New(dir string, layers *snapshot.Layers) (*Replayer, error) {
	r := &Replayer{
		layers: layers, views: filepath.Join(dir, "views"), times: filepath.Join(dir, "times"),
		log:       filepath.Join(dir, "cache-mounts"),
		debug:     debugFromEnv(),
		supported: sync.OnceValue(view.Supported),
	}
	if err := os.RemoveAll(r.views); err != nil {
		return nil, fmt.Errorf("remove old mount points: %w", err)
	}
	for _, d := range []string{r.views, r.times} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("make directory of traces: %w", err)
		}
	}
	r.start, r.stop = background()
	var err error
	if r.traces, err = store.Open(filepath.Join(dir, "index"), layers.SharedPath); err != nil {
		return nil, fmt.Errorf("open traces: %w", err)
	}
	return r, nil
}

// Worker is BuildKit's worker with steps that are watched and replayed.
func (r *Replayer) Worker(w *base.Worker) worker.Worker {
	if r.worker == nil { // it is called for single steps, too, with a cache manager of theirs
		r.worker = w
	}
	return &watching{w, r}
}

type watching struct {
	*base.Worker
	r *Replayer
}

// ResolveOp returns stock ops: provenance looks at their type.
func (w *watching) ResolveOp(v solver.Vertex, s frontend.FrontendLLBBridge, sm *session.Manager, proxy worker.ProxyOpt) (solver.Op, error) {
	op, ok := v.Sys().(*pb.Op)
	project, marked := v.Options().Description[MarkKey]
	if !ok || proxy.Network {
		return w.Worker.ResolveOp(v, s, sm, proxy)
	}
	if exec := op.GetExec(); exec != nil && !marked && len(cacheMounts(exec)) == 0 {
		return w.Worker.ResolveOp(v, s, sm, proxy)
	}
	switch o := op.Op.(type) {
	case *pb.Op_File:
		return w.fileOp(v, o, marked, project)
	case *pb.Op_Exec:
		var resources *pb.LinuxResources
		if m, ok := v.Options().Metadata.(*linuxresources.Metadata); ok && m != nil {
			resources = m.LinuxResources
		}
		if !marked {
			return ops.NewExecOp(v, o, op.Platform, w.CacheMgr, w.ParallelismSem, sm, w.r.noting(w.WorkerOpt.Executor, o.Exec, nil), w, resources, false)
		}
		o = withoutWholeHash(o)
		st := newStep(w.r, v, o.Exec, op.Platform, project)
		exec, err := ops.NewExecOp(v, o, op.Platform, rootManager{w.CacheMgr, st}, w.ParallelismSem, sm, &stepExecutor{w.r.noting(w.WorkerOpt.Executor, o.Exec, st), st}, w, resources, false)
		if err != nil {
			return nil, err
		}
		st.digest = func(ctx context.Context) (string, error) {
			m, _, err := exec.CacheMap(ctx, nil, 0)
			if err != nil {
				return "", err
			}
			return m.Digest.String(), nil
		}
		return exec, nil
	}
	return w.Worker.ResolveOp(v, s, sm, proxy)
}

// fileOp is a stock file operation that keeps times, if it is marked, and does without the layers below it where it can.
func (w *watching) fileOp(v solver.Vertex, o *pb.Op_File, marked bool, project string) (solver.Op, error) {
	with := func(m cache.Manager) (solver.Op, error) {
		if marked {
			if keeps := w.r.keeperOf(v, o.File, project); keeps != nil {
				m = copyManager{m, keeps}
			}
		}
		return ops.NewFileOp(v, o, m, w.ParallelismSem, w)
	}
	plain, err := with(w.CacheMgr)
	if err != nil || w.r.files == nil {
		return plain, err
	}
	late, err := with(w.r.files.Manager(w.CacheMgr, o.File))
	return w.r.files.Op(late, plain), err
}

// Close ends what goes on in the background, and removes what no layer belongs to any more.
func (r *Replayer) Close() {
	r.stop()
	if err := r.traces.Collect(maxKeys); err != nil {
		logrus.WithError(err).Warn("collect traces")
	}
	collectOld(r.times, maxTimes)
}

// Bounds of what is kept: weak keys with traces, and COPYs whose last layer is known.
const (
	maxKeys  = 20_000
	maxTimes = 5_000
)

// rootManager is the cache manager of one exec: it notes the snapshot that is made for its root file system.
type rootManager struct {
	cache.Manager
	step *step
}

func (m rootManager) New(ctx context.Context, parent cache.ImmutableRef, g session.Group, opts ...cache.RefOption) (cache.MutableRef, error) {
	if parent == nil || m.step.refuses != nil { // cache mounts have none; a step with other writable mounts is not watched
		return m.Manager.New(ctx, parent, g, opts...)
	}
	st := m.step
	st.mu.Lock()
	st.cm, st.session, st.parent = m.Manager, g, parent
	st.mu.Unlock()
	make := func(ctx context.Context) (cache.MutableRef, error) {
		st.r.startViewer()
		ctx = lazypull.WithCommand(ctx, st.op.Meta.Args, st.op.Meta.Env)
		return m.Manager.New(snapshot.WithPrepared(ctx, st.prepare), parent, g, opts...)
	}
	if lazy.Pending(parent) && !st.noCache {
		d := &deferred{make: make} // until it is known whether the step is to be run
		st.mu.Lock()
		defer st.mu.Unlock()
		st.deferred = d
		return &rootRef{MutableRef: d, step: st}, nil
	}
	ref, err := make(ctx)
	if err != nil {
		return nil, err
	}
	return &rootRef{MutableRef: ref, step: st}, nil
}

// stepExecutor runs one exec.
type stepExecutor struct {
	executor.Executor
	step *step
}

// now is a variable for tests.
var now = time.Now
