package lazypull

import (
	"context"
	"fmt"
	"sync"

	"github.com/moby/buildkit/executor"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/cache/remote"
	"github.com/optbuild/optbuild/snapshot"
)

// failures are the readings that came to nothing.
type failures struct {
	mu   sync.Mutex
	list []error // the last ones
	n    int
	next chan struct{} // closed at the next one; nil if nobody waits
}

// maxFailures are kept.
const maxFailures = 64

func (f *failures) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
	if f.next != nil {
		close(f.next)
		f.next = nil
	}
	f.list = append(f.list, err)
	if len(f.list) > maxFailures {
		f.list = f.list[1:]
	}
}

// coming returns how many there were, and what is closed at the next one.
func (f *failures) coming() (int, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.next == nil {
		f.next = make(chan struct{})
	}
	return f.n, f.next
}

// since returns the first failure after so many; nil if there is none.
func (f *failures) since(n int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n == n {
		return nil
	}
	return f.list[max(0, len(f.list)-(f.n-n))]
}

// Failed is what the server calls before somebody gets an I/O error.
func (p *Puller) Failed(id, reason string) {
	p.mu.Lock()
	s := p.sources[id]
	p.mu.Unlock()
	if s != nil {
		p.fail(s.layer, reason)
	}
}

func (p *Puller) fail(l layer, reason string) {
	err := fmt.Errorf("a layer of %s can't be read any more: %s: %s", l.Ref, l.Digest, reason)
	if l.Cache {
		err = fmt.Errorf("%s %s %s: %s", l.Digest, remote.CantRead, l.Ref, reason)
	}
	p.failures.add(err)
	logrus.WithError(err).Debug("a reader gets an I/O error")
}

// Executor ends a step, and fails it, during which a layer could not be read, whatever becomes of the step: it may have taken the error for a file that is not there. The layer need not be one of its own; to know
// which is would be worth little, since a registry that is gone is gone for all.
func (p *Puller) Executor(e executor.Executor) executor.Executor { return stepExecutor{e, p} }

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
	ended := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		select {
		case <-next: // what is read from now on would have to be waited for, too
			cancel()
		case <-ended:
		}
	})
	rec, err := e.Executor.Run(snapshot.WithOneDevice(ctx), id, root, mounts, process, started)
	close(ended)
	wait.Wait()
	if lost := e.p.process.Lost(); lost != nil && err == nil { // a moment ago: that it has ended is not noted yet
		err = fmt.Errorf("layers can't be read any more: %w", lost)
	}
	if failure := e.p.failures.since(before); failure != nil {
		if err != nil {
			return rec, fmt.Errorf("%w (%v)", failure, err) // not as the exit code of the step, which is what would be shown
		}
		return rec, failure
	}
	return rec, err
}
