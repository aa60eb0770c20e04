package lazy

import (
	"context"
	"sync"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/snapshot"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/worker"
)

// inParts is a manager that has other records of the same files, of which only what is read is fetched (package lazypull: twins).
type inParts interface {
	// OnTwins returns such a record; nil if there is none.
	OnTwins(ctx context.Context, r cache.ImmutableRef, g session.Group) cache.ImmutableRef
	// OffTwins returns the record of what is read by twins as it is without them, for a build that does without; nil if there is no need.
	OffTwins(ctx context.Context, r cache.ImmutableRef, g session.Group) cache.ImmutableRef
	// Unread returns a function that says why files could not be read meanwhile; nil if they could.
	Unread() func() error
}

// OnTwins, OffTwins and Unread are those of the manager below.
func (m plainManager) OnTwins(ctx context.Context, r cache.ImmutableRef, g session.Group) cache.ImmutableRef {
	if p, ok := m.Manager.(inParts); ok {
		return p.OnTwins(ctx, Unwrap(r), g)
	}
	return nil
}

func (m plainManager) OffTwins(ctx context.Context, r cache.ImmutableRef, g session.Group) cache.ImmutableRef {
	if p, ok := m.Manager.(inParts); ok {
		return p.OffTwins(ctx, Unwrap(r), g)
	}
	return nil
}

func (m plainManager) Unread() func() error {
	if p, ok := m.Manager.(inParts); ok {
		return p.Unread()
	}
	return func() error { return nil }
}

// reader is what a file operation reads in parts: the image that it copies from, or the names of users.
type reader struct {
	cache.ImmutableRef
	m inParts

	mu sync.Mutex
	on cache.ImmutableRef // nil: it was not mounted, or is read as it is
}

func (r *reader) unwrap() cache.ImmutableRef { return Unwrap(r.ImmutableRef) }

func (r *reader) Clone() cache.ImmutableRef { return r.ImmutableRef.Clone() }

func (r *reader) Mount(ctx context.Context, readonly bool, g session.Group) (snapshot.Mountable, error) {
	r.mu.Lock()
	if r.on == nil && readonly {
		r.on = r.m.OnTwins(ctx, r.ImmutableRef, g)
	}
	on := r.on
	r.mu.Unlock()
	if on != nil {
		return on.Mount(ctx, readonly, g)
	}
	return r.ImmutableRef.Mount(ctx, readonly, g)
}

// readResult is a solver's result that is read so.
type readResult struct {
	solver.Result
	ref *worker.WorkerRef
}

func (r readResult) Sys() any { return r.ref }

// readers returns the inputs of an operation, those that have not been fetched to be read in parts, and what releases these.
func readers(m inParts, inputs []solver.Result) (list []solver.Result, done func(context.Context)) {
	var all []*reader
	for _, in := range inputs {
		if w, ok := in.Sys().(*worker.WorkerRef); ok && Pending(w.ImmutableRef) {
			r := &reader{ImmutableRef: w.ImmutableRef, m: m}
			all = append(all, r)
			in = readResult{in, &worker.WorkerRef{ImmutableRef: r, Worker: w.Worker}}
		}
		list = append(list, in)
	}
	return list, func(ctx context.Context) {
		for _, r := range all {
			if r.on != nil {
				release(ctx, r.on)
			}
		}
	}
}
