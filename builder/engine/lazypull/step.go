package lazypull

import (
	"context"
	"fmt"
	"os"
	"path"
	"slices"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/executor"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"

	"github.com/optbuild/optbuild/snapshot"
)

// Executor ends a step, and fails it, during which one of its layers could not be read, whatever becomes of the step: it may have taken the error for a file that is not there. Steps that don't have the layer in
// their root or in a mount go on.
func (p *Puller) Executor(e executor.Executor) executor.Executor { return stepExecutor{e, p} }

type stepKey struct{}

// ForStep returns a context in which something is mounted for a step, that a directory of it is for: "" is all of it.
func ForStep(ctx context.Context, selector string) context.Context {
	return context.WithValue(ctx, stepKey{}, path.Join("/", selector))
}

// InStep is true in calls that mount something for a step; whole if that is all of it.
func InStep(ctx context.Context) (in, whole bool) {
	selector, in := ctx.Value(stepKey{}).(string)
	return in, selector == "/"
}

type stepExecutor struct {
	executor.Executor
	p *Puller
}

func (e stepExecutor) Run(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, process executor.ProcessInfo, started chan<- struct{}) (resourcestypes.Recorder, error) {
	e.p.broken.RLock()
	before, next := e.p.failures.coming()
	e.p.broken.RUnlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &step{p: e.p, before: before}
	root.Src = s.noting(root)
	mounts = slices.Clone(mounts)
	for i := range mounts {
		mounts[i].Src = s.noting(mounts[i])
	}
	ended := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			select {
			case <-next:
				_, next = e.p.failures.coming()
				if s.failure() != nil { // what is read from now on would have to be waited for, too
					cancel()
					return
				}
			case <-ended:
				return
			}
		}
	})
	rec, err := e.Executor.Run(snapshot.WithOneDevice(ctx), id, root, mounts, process, started)
	close(ended)
	wait.Wait()
	if err == nil && s.remote() {
		if lost := e.p.process.Lost(); lost != nil { // a moment ago: that it has ended is not noted yet
			err = fmt.Errorf("layers can't be read any more: %w", lost)
		}
	}
	if failure := s.failure(); failure != nil {
		if err != nil {
			return rec, fmt.Errorf("%w (%v)", failure, err) // not as the exit code of the step, which is what would be shown
		}
		return rec, failure
	}
	return rec, err
}

// step is one that runs, with the layers of its mounts.
type step struct {
	p      *Puller
	before int // so many failures there were when it began

	mu  sync.Mutex
	ids map[string]bool
	any bool // which layers a mount has is not known: it may be any
}

func (s *step) note(ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ids == nil {
		s.ids = map[string]bool{}
	}
	for _, id := range ids {
		s.ids[id] = true
	}
}

func (s *step) has(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.any || s.ids[id]
}

// remote is true if the step may have a layer that is mounted.
func (s *step) remote() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.any || len(s.ids) > 0
}

func (s *step) failure() error { return s.p.failures.since(s.before, s.has) }

// noting returns what is mounted for the step, of which it takes note.
func (s *step) noting(m executor.Mount) executor.Mountable {
	if m.Src == nil {
		return nil
	}
	return notingMount{m.Src, s, m.Selector}
}

type notingMount struct {
	executor.Mountable
	s        *step
	selector string
}

// Mount takes note of the layers in two ways, of which one alone would miss some. The snapshotter is asked, and says which layers it has, also those that views stand for; but BuildKit asks it only for the first of several
// mounts of a snapshot. What is to be mounted names its layers; but a snapshot for writing is an overlay that BuildKit has mounted by itself, and so a directory of which nothing is known.
func (m notingMount) Mount(ctx context.Context, readonly bool) (executor.MountableRef, error) {
	asked := false
	ref, err := m.Mountable.Mount(snapshot.WithRemote(ForStep(ctx, m.selector), func(ids []string) {
		asked = true
		m.s.note(ids)
	}), readonly)
	if err != nil {
		return nil, err
	}
	return notingRef{ref, m.s, asked}, nil
}

type notingRef struct {
	executor.MountableRef
	s     *step
	asked bool // the snapshotter was
}

func (r notingRef) Mount() ([]mount.Mount, func() error, error) {
	list, release, err := r.MountableRef.Mount()
	if err != nil {
		return nil, nil, err
	}
	layers := r.s.p.o.Layers
	for _, m := range list {
		r.s.note(layers.RemoteIn(m))
		if !r.asked && m.Type == "bind" && !layers.Has(m.Source) && !isFile(m.Source) {
			r.s.mu.Lock()
			r.s.any = true
			r.s.mu.Unlock()
		}
	}
	return list, release, nil
}

// isFile is true for secrets and sockets, which are mounted one by one.
func isFile(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && !fi.IsDir()
}
