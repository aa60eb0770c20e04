package lazy

import (
	"context"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/snapshot"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/util/progress"
	"github.com/moby/buildkit/worker"

	"github.com/optbuild/optbuild/builder/engine/lazypull"
)

// inParts is a manager that has other records of the same files, of which only what is read is fetched (package lazypull: twins).
type inParts interface {
	// OnTwins returns such a record; nil if there is none.
	OnTwins(ctx context.Context, r cache.ImmutableRef, g session.Group) cache.ImmutableRef
	// OffTwins returns the record of what is read by twins as it is without them, for a build that does without; nil if there is no need.
	OffTwins(ctx context.Context, r cache.ImmutableRef, g session.Group) cache.ImmutableRef
	// Unread returns a function that says why files could not be read meanwhile; nil if they could.
	Unread() func() error
	// Noted returns a function that notes that a step has a reference mounted; it may be nil.
	Noted(r cache.ImmutableRef, g session.Group) func()
}

// OnTwins, OffTwins, Unread and Noted are those of the manager below.
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

func (m plainManager) Noted(r cache.ImmutableRef, g session.Group) func() {
	if p, ok := m.Manager.(inParts); ok {
		return p.Noted(Unwrap(r), g)
	}
	return nil
}

// instead returns what is read in place of a reference; nil if it is read as it is.
func instead(ctx context.Context, m inParts, r cache.ImmutableRef, g session.Group) cache.ImmutableRef {
	if off := m.OffTwins(ctx, r, g); off != nil {
		return off
	}
	return m.OnTwins(ctx, r, g)
}

// unnoted is what is known of a record, but for what was read of it in parts: BuildKit is to look at that again each time, and finds nothing under an id that is given once.
type unnoted struct {
	cache.RefMetadata
	id string
}

func (u unnoted) ID() string { return u.id }

func (u unnoted) GetExternal(string) ([]byte, error) { return nil, errdefs.ErrNotFound }

func (u unnoted) SetExternal(string, []byte) error { return nil }

// telling returns what is mounted, and tells why it could not be read when it is no longer: who reads it beside a step knows of an I/O error only.
func telling(ctx context.Context, m snapshot.Mountable, unread func() error) snapshot.Mountable {
	if in, _ := lazypull.InStep(ctx); in || m == nil { // the step is failed, with the reason
		return m
	}
	return tellingMount{m, func() {
		if why := unread(); why != nil {
			_ = progress.OneOff(ctx, why.Error())(nil) // a line of the step: its error has no room for it
		}
	}}
}

type tellingMount struct {
	snapshot.Mountable
	tell func()
}

func (m tellingMount) Mount() ([]mount.Mount, func() error, error) {
	list, done, err := m.Mountable.Mount()
	if err != nil {
		return nil, nil, err
	}
	return list, func() error {
		m.tell()
		if done == nil {
			return nil
		}
		return done()
	}, nil
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
		r.on = instead(ctx, r.m, r.ImmutableRef, g)
	}
	on := r.on
	r.mu.Unlock()
	if on != nil {
		return on.Mount(ctx, readonly, g)
	}
	return Unwrap(r.ImmutableRef).Mount(ctx, readonly, g)
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
