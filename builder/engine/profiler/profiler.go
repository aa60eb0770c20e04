// Package profiler runs the first process of a container over views of all its layers, and tells what it looked at.
//
//	a client of BuildKit's gateway ──> NewContainer, Start ──> our executor ──┬──> BuildKit's executor: the container, its root file system an overlay of views
//	                               └─> Start, once more ────────────────────> └──> conditions in, events out
//
// What comes in is a process with a mark in its environment ([profile.TakeMark]); all others are none of its business. What goes out, to the second process of the same mark, is which
// condition holds, and at the end the files ([profile.Event]). When to stop is the client's decision: it sends signals, as to any process.
//
// Views are those of package view, one for each layer, served by a viewer; nothing of the container is kept. The package knows nothing of registries, formats or command lines.
package profiler

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/worker"

	"github.com/optbuild/optbuild/builder/profile"
	"github.com/optbuild/optbuild/builder/trace/view"
	"github.com/optbuild/optbuild/builder/trace/view/viewer"
)

// Profiler watches containers. Its methods may be called concurrently.
type Profiler struct {
	dir     string // of mount points
	runtime string

	viewer    viewer.Process
	supported func() error

	mu      sync.Mutex
	started map[string]*container // by token
}

// New returns a Profiler that mounts views below dir, which it creates; what a killed engine left there it removes. runtime is the OCI runtime that the executor uses.
func New(dir, runtime string) (*Profiler, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("remove old mount points: %w", err)
	}
	return &Profiler{dir: dir, runtime: runtime, supported: view.Supported, started: map[string]*container{}}, nil
}

// Close ends the viewer.
func (p *Profiler) Close() { p.viewer.Close() }

// Worker is w with containers that are watched if they are marked.
func (p *Profiler) Worker(w worker.Worker) worker.Worker { return watching{w, p} }

type watching struct {
	worker.Worker
	p *Profiler
}

// Executor is what containers of BuildKit's gateway are run by. Steps are not.
func (w watching) Executor() executor.Executor { return &watchingExecutor{w.Worker.Executor(), w.p} }

// container is one that is watched.
type container struct {
	id      string
	program executor.ProcessInfo
	ports   map[int]bool // that something listened on in the engine's network before it began

	ended chan struct{} // closed at its end; end is set then
	end   profile.End
}

// keptTime is how long the end of a container is kept for who asks for it: a client that is there asks at once.
const keptTime = time.Minute

// begin makes a container known.
func (p *Profiler) begin(token, id string, program executor.ProcessInfo) (*container, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.started[token] != nil {
		return nil, errors.New("a container with this mark was started already")
	}
	c := &container{id: id, program: program, ports: listening("self"), ended: make(chan struct{})}
	p.started[token] = c
	return c, nil
}

func (p *Profiler) finish(token string, c *container, end profile.End) {
	c.end = end
	close(c.ended)
	time.AfterFunc(keptTime, func() { p.forget(token) })
}

func (p *Profiler) forget(token string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.started, token)
}

func (p *Profiler) find(token string) *container {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.started[token]
}

// unwatched is an End without files.
func unwatched(err error) profile.End { return profile.End{Code: -1, Error: err.Error()} }

// ask answers the second process of a mark.
func (e *watchingExecutor) ask(ctx context.Context, token string, process executor.ProcessInfo) error {
	tell := newTeller(process.Stdout)
	c := e.p.find(token)
	if c == nil {
		return tell(profile.Event{End: &profile.End{Code: -1, Error: "no such container is watched"}})
	}
	defer e.p.forget(token)
	conditions, err := parseConditions(process.Meta.Args)
	if err != nil {
		return tell(profile.Event{Refused: err.Error()})
	}
	looking, stop := context.WithCancel(ctx)
	held, ended := e.look(looking, c, conditions)
	defer func() { stop(); ended() }()
	for {
		select {
		case event := <-held:
			if err := tell(event); err != nil {
				return err
			}
		case <-c.ended:
			return tell(profile.Event{End: &c.end})
		case <-ctx.Done():
			return nil // whoever asked is gone
		}
	}
}
