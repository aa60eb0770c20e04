// Package nodes has platforms of a build solved by BuildKit daemons elsewhere, and makes their images results of this machine's engine.
//
//	the command                                                     a node (a BuildKit daemon)
//	[Fleet.Build] ── frontend runs here, session too ──solve──>     steps, layers
//	     │   <──────────── image: blobs that are not here yet ──────┘
//	     └── llb.OCILayout of that image ──> this machine's engine ──> any output
//
// Terms. A *node* is a daemon with the platforms that the user has given to it. A *part* is the image of one platform. A node is *lost* when it can't be
// reached, ends or keeps silent in the middle of a solve; a solve that fails for a reason that the Dockerfile or its inputs are the cause of is a build that
// failed, which another node would not mend.
//
// What comes in is what the engine's client would be given to solve. What goes out is a function for that client which solves the platforms that have nodes there and the others
// here, at the same time, and puts the results together. Since the parts become results of the engine, its exporters see no difference: pushes, archives, directories, the
// local store, annotations, limits and merged layers work as always, and an image that is made in two places becomes one index.
//
// Where it is weak: all layers of a node's image come to this machine, also those that a push sends on. What the engine does while steps run (watching them, sharing its cache)
// is not done on nodes, which are BuildKit as it is.
//
// The package knows nothing of Dockerfiles, flags and terminals.
package nodes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Fleet is the nodes of one build. Its methods may be called concurrently.
type Fleet struct {
	nodes []*node
	// grace is how long other answers are waited for when there is one: a slow link to one node is no reason to keep all others waiting.
	grace time.Duration

	mu    sync.Mutex
	notes []string
}

// node is one of a fleet.
type node struct {
	Node
	solves int // that this build has there; guarded by Fleet.mu
}

// New returns a fleet. The order of the nodes counts where all else is equal.
func New(list []Node) *Fleet {
	f := &Fleet{grace: 2 * time.Second}
	for _, n := range list {
		f.nodes = append(f.nodes, &node{Node: n})
	}
	return f
}

// Has reports whether a platform has a node.
func (f *Fleet) Has(platform string) bool { return len(f.of(platform)) > 0 }

func (f *Fleet) of(platform string) (list []*node) {
	for _, n := range f.nodes {
		if slices.Contains(n.Platforms, platform) {
			list = append(list, n)
		}
	}
	return list
}

// Notes are lines for the user about where platforms were built, and about nodes that were lost, in the order in which that happened.
func (f *Fleet) Notes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.notes)
}

func (f *Fleet) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if line := fmt.Sprintf(format, args...); !slices.Contains(f.notes, line) { // a build that is checked is made twice
		f.notes = append(f.notes, line)
	}
}

// LostError is a node that could not be used, or not to the end.
type LostError struct {
	Address string
	Err     error
}

func (e *LostError) Error() string { return e.Address + ": " + e.Err.Error() }
func (e *LostError) Unwrap() error { return e.Err }

// UnavailableError says that nothing can build a platform: all its nodes are lost, and this machine can't.
type UnavailableError struct {
	Platform string
	Lost     []*LostError
	Own      error // why this machine can't
}

func (e *UnavailableError) Error() string {
	var list []string
	for _, l := range e.Lost {
		list = append(list, l.Error())
	}
	return fmt.Sprintf("no node for %s is left: %s; and this machine can't build it: %v", e.Platform, strings.Join(list, "; "), e.Own)
}

func (e *UnavailableError) Unwrap() error { return e.Own }

// errSilent says that a node has stopped answering.
var errSilent = errors.New("it does not answer any more")

// part builds a platform on the least busy of its nodes, and on the next one when that is lost. The error is a *LostError of each node that was tried, joined in
// lost, or that of the build.
func (f *Fleet) part(ctx context.Context, platform string, b Build) (*part, []*LostError, error) {
	var lost []*LostError
	candidates := f.of(platform)
	for len(candidates) > 0 {
		n, failed := f.choose(ctx, platform, candidates)
		if ctx.Err() != nil { // then none of them has failed
			if n != nil {
				_ = n.client.Close()
				f.leave(n.node)
			}
			return nil, lost, context.Cause(ctx)
		}
		for _, l := range failed {
			lost = append(lost, l.LostError)
			f.note("node for %s: %v", platform, l)
			candidates = slices.DeleteFunc(candidates, func(c *node) bool { return c == l.node })
		}
		if n == nil {
			continue
		}
		p, err := f.solve(ctx, n.node, n.client, platform, b)
		_ = n.client.Close()
		f.leave(n.node)
		var l *LostError
		switch {
		case err == nil:
			line := fmt.Sprintf("%s: built by %s", platform, n.node.Address)
			if p.unwatched {
				line += ", where steps are not watched and replayed"
			}
			f.note("%s", line)
			return p, lost, nil
		case ctx.Err() != nil:
			return nil, lost, context.Cause(ctx)
		case !errors.As(err, &l):
			return nil, lost, err
		}
		lost = append(lost, l)
		f.note("node for %s: lost in the middle of the build: %v", platform, l)
		candidates = slices.DeleteFunc(candidates, func(c *node) bool { return c == n.node })
	}
	return nil, lost, nil
}

func (f *Fleet) leave(n *node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n.solves--
}
