// Package unsynced runs steps whose root file system never syncs what they write.
//
// dpkg, npm, pip, sqlite and git sync each file so that a crash of the machine leaves a whole one. The layer that a step makes
// is an entry of a cache, which is thrown away after such a crash in any case, so that the step waits for the disk in vain.
//
//	ResolveOp ──> is the vertex marked? ──> BuildKit's executor, given a root file system that is mounted "volatile"
//
// What comes in is a vertex that the frontend has marked ([MarkKey]); what goes out is the op that the worker below resolves,
// with another executor. What is mounted besides the root file system, cache mounts first of all, is mounted as ever: its
// content is not a layer. The package knows nothing of Dockerfiles; how it is mounted is package snapshot's affair.
//
// Where it is weak: a step that looks for it finds the option in /proc/self/mountinfo; msync of a mapped file still writes.
package unsynced

import (
	"context"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
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
	"github.com/optbuild/optbuild/snapshot"
)

// MarkKey is the key in a RUN's description that asks for it. The value says nothing.
const MarkKey = "optbuild.unsynced"

// Steps decides for steps, and remembers what the machine is able to do. Its methods may be called concurrently.
type Steps struct {
	supported func() bool
}

// New returns Steps for snapshots that are mounted from below dir, which must exist. Nothing is tried until the first step is run.
func New(dir string) *Steps {
	return &Steps{sync.OnceValue(func() bool {
		err := snapshot.CanSkipSync(dir)
		if err != nil {
			logrus.WithError(err).Info("steps sync what they write")
		}
		return err == nil
	})}
}

// Worker returns what inner makes of w, with steps that do not sync if they are marked, and file operations, which never do.
func (s *Steps) Worker(w *base.Worker, inner func(*base.Worker) worker.Worker) worker.Worker {
	return choosing{
		Worker: inner(w),
		steps:  inner(derived.Worker(w, w.CacheMgr, steps{w.WorkerOpt.Executor, s})),
		files:  inner(derived.Worker(w, files{w.CacheMgr, s}, w.WorkerOpt.Executor)),
	}
}

type choosing struct {
	worker.Worker
	steps, files worker.Worker
}

func (w choosing) ResolveOp(v solver.Vertex, b frontend.FrontendLLBBridge, sm *session.Manager, proxy worker.ProxyOpt) (solver.Op, error) {
	if _, ok := v.Options().Description[MarkKey]; ok {
		return w.steps.ResolveOp(v, b, sm, proxy)
	}
	if op, ok := v.Sys().(*pb.Op); ok && op.GetFile() != nil {
		return w.files.ResolveOp(v, b, sm, proxy)
	}
	return w.Worker.ResolveOp(v, b, sm, proxy)
}

// steps is an executor.
type steps struct {
	executor.Executor
	s *Steps
}

func (e steps) Run(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, process executor.ProcessInfo,
	started chan<- struct{}) (resourcestypes.Recorder, error) {
	if !e.s.supported() {
		return e.Executor.Run(ctx, id, root, mounts, process, started)
	}
	root.Src = &rootfs{Mountable: root.Src}
	return e.Executor.Run(ctx, id, root, mounts, process, started)
}

// rootfs is the root file system of one run. An executor may mount it several times, one after another: to look for a program first, say.
type rootfs struct {
	executor.Mountable
	marks marks
}

func (r *rootfs) Mount(ctx context.Context, readonly bool) (executor.MountableRef, error) {
	ctx, u := snapshot.WithoutSync(ctx)
	ref, err := r.Mountable.Mount(ctx, readonly)
	if err != nil {
		return nil, err
	}
	return r.marks.with(ref, u), nil
}

// marks are what the kernel leaves in the work directories of one mutable snapshot.
type marks struct{ mounted []*snapshot.Unsynced }

// with returns ref, whose marks are taken away each time that it has been unmounted. A mutable snapshot keeps its mounts, so that only the first of several refs may have been
// asked for directories.
func (m *marks) with(ref executor.MountableRef, u *snapshot.Unsynced) executor.MountableRef {
	m.mounted = append(m.mounted, u)
	return marked{ref, m}
}

type marked struct {
	executor.MountableRef
	marks *marks
}

// Mount returns what to mount, and what is called when it has been unmounted.
func (m marked) Mount() ([]mount.Mount, func() error, error) {
	mounts, release, err := m.MountableRef.Mount()
	if err != nil {
		return nil, nil, err
	}
	return mounts, func() error {
		m.marks.takeAway()
		if release == nil {
			return nil
		}
		return release()
	}, nil
}

func (m *marks) takeAway() {
	for _, u := range m.mounted {
		if err := u.Unmounted(); err != nil {
			logrus.WithError(err).Warn("tidy up after a step that did not sync")
		}
	}
}
