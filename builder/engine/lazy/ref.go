// Package lazy puts off fetching the layers below a step until something needs their files. A machine that starts with nothing then gets by without those that are only part of the image:
// the base image's, and those of steps that are replayed from a shared cache.
//
//	source, shared cache ──Ref──> solver ──> step ──New──> Manager ─┬─ a COPY or WORKDIR whose surroundings are known (Tree): made on a skeleton of them, its layer put on the lazy ones
//	                                                                └─ anything else: the layers are fetched, as without us
//
// BuildKit fetches a step's inputs when it is about to run. A Ref says that it has been, and does it when it is mounted: no step can miss files. So what is put off costs nothing but the time
// at which it happens.
//
// What only is to be read, the image that a COPY takes files from or a RUN has mounted, may be read in parts (parts.go).
package lazy

import (
	"context"
	"errors"
	"sync"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/snapshot"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/source"
	"github.com/moby/buildkit/worker"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/builder/engine/lazypull"
)

// ref is a reference that is fetched when it is mounted, or read in parts by steps.
type ref struct {
	cache.ImmutableRef
	parts inParts                  // nil: it is not read in parts
	late  func(session.Group) bool // for whom to fetch it is put off, of what an earlier build has left; nil: for all

	mu     sync.Mutex
	on     map[string]cache.ImmutableRef // what was mounted in its place, by id
	plain  bool                          // nothing was
	hashed bool                          // BuildKit has asked for it, to know a step by its files
}

// Extract does nothing yet.
func (r *ref) Extract(ctx context.Context, g session.Group) error {
	if r.late == nil || r.late(g) {
		return nil
	}
	return r.ImmutableRef.Extract(ctx, g)
}

func (r *ref) Clone() cache.ImmutableRef { return wrap(r.ImmutableRef.Clone(), r.parts, r.late) }

func (r *ref) unwrap() cache.ImmutableRef { return r.ImmutableRef }

// Mount has steps read what was not fetched in parts, if they only read. Exports read it as it is.
func (r *ref) Mount(ctx context.Context, readonly bool, g session.Group) (snapshot.Mountable, error) {
	if !readonly || r.parts == nil || !ofStep(ctx, g) {
		return r.ImmutableRef.Mount(ctx, readonly, g)
	}
	asIs := r.asItIs(ctx)
	if in, _ := lazypull.InStep(ctx); in {
		if note := r.parts.Noted(r, g); note != nil {
			note()
		}
	}
	if !asIs {
		unread := r.parts.Unread()
		if on := r.hold(ctx, instead(ctx, r.parts, r, g)); on != nil {
			m, err := on.Mount(ctx, readonly, g)
			return telling(ctx, m, unread), err
		}
	}
	return r.ImmutableRef.Mount(ctx, readonly, g)
}

// readWholeKey is the key of the note that all files of a record are read by each step that has it mounted.
const readWholeKey = "optbuild.read-whole"

// asItIs is true if this is not read in parts, or no more: nothing was found to mount in its place, or there would be no use in it. BuildKit reads all of what is mounted as a whole, to know it by its content: a machine that starts with
// nothing gets it in parts, once; where it is needed again it is fetched, to stay.
func (r *ref) asItIs(ctx context.Context) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	noted := r.GetString(readWholeKey) != ""
	if in, whole := lazypull.InStep(ctx); in && whole && r.hashed && !noted {
		if err := r.SetString(readWholeKey, "yes", ""); err != nil {
			logrus.WithError(err).Debug("note that an image is read as a whole")
		}
	}
	return r.plain || noted && len(r.on) == 0
}

// hold keeps what is mounted for as long as this is held. If there is nothing it stays so.
func (r *ref) hold(ctx context.Context, on cache.ImmutableRef) cache.ImmutableRef {
	r.mu.Lock()
	defer r.mu.Unlock()
	if on == nil {
		r.plain = len(r.on) == 0
		return nil
	}
	if held := r.on[on.ID()]; held != nil {
		release(ctx, on)
		return held
	}
	if r.on == nil {
		r.on = map[string]cache.ImmutableRef{}
	}
	r.on[on.ID()] = on
	return on
}

func (r *ref) Release(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, on := range r.on {
		errs = append(errs, on.Release(ctx))
	}
	r.on = nil
	return errors.Join(append(errs, r.ImmutableRef.Release(ctx))...)
}

// GetEqualMutable is what BuildKit asks (cache/contenthash) before it notes with a record what its files' digests are. Those that are read in parts may be another cache's tomorrow: they are noted nowhere.
func (r *ref) GetEqualMutable() (cache.RefMetadata, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.parts != nil && !r.plain && lazypull.Partial(r) {
		r.hashed = true
		return unnoted{r.ImmutableRef, identity.NewID()}, true
	}
	return r.ImmutableRef.GetEqualMutable()
}

// ofStep is true if a step mounts something, or BuildKit to know the step by what it will read. Exports have sessions, and no job; what is compressed beside the steps does not have the solver's context.
func ofStep(ctx context.Context, g session.Group) bool {
	_, ok := g.(solver.JobContext)
	return ok && solver.CacheOptGetterOf(ctx) != nil
}

// wrapped is a ref, or one that is read in another way.
type wrapped interface{ unwrap() cache.ImmutableRef }

// Wrap puts off fetching a reference; nil stays nil.
func Wrap(r cache.ImmutableRef) cache.ImmutableRef { return wrap(r, nil, nil) }

// Wrap is [Wrap], and has steps read the reference in parts.
func (f *Files) Wrap(r cache.ImmutableRef) cache.ImmutableRef { return wrap(r, f.parts, nil) }

func wrap(r cache.ImmutableRef, parts inParts, late func(session.Group) bool) cache.ImmutableRef {
	if _, done := r.(wrapped); done || r == nil {
		return r
	}
	return &ref{ImmutableRef: r, parts: parts, late: late}
}

// Unwrap returns BuildKit's own reference.
func Unwrap(r cache.ImmutableRef) cache.ImmutableRef {
	if w, ok := r.(wrapped); ok {
		return w.unwrap()
	}
	return r
}

// Pending is true if layers of a reference that was wrapped have not been fetched. What an earlier build has left is not: steps begin on it at once.
func Pending(r cache.ImmutableRef) bool {
	if w, ok := r.(*ref); ok && w.late != nil {
		return false
	}
	_, ok := r.(wrapped)
	return ok && lazypull.Partial(r)
}

// Worker is a worker whose results from registries are fetched late.
type Worker struct {
	worker.Worker
	Manager cache.Manager // [Plain]'s
}

// FromRemote returns a result that is at a registry.
func (w Worker) FromRemote(ctx context.Context, remote *solver.Remote) (cache.ImmutableRef, error) {
	r, err := w.Worker.FromRemote(ctx, remote)
	if err != nil {
		return nil, err
	}
	parts, _ := w.Manager.(inParts)
	return wrap(r, parts, nil), nil
}

// Loading is a worker whose results from earlier builds are fetched late for the builds for which asked is true. The manager is [Plain]'s.
func Loading(w worker.Worker, m cache.Manager, asked func(session.Group) bool) worker.Worker {
	parts, ok := m.(inParts)
	if !ok {
		return w
	}
	return loadingWorker{w, parts, asked}
}

type loadingWorker struct {
	worker.Worker
	parts inParts
	asked func(session.Group) bool
}

func (w loadingWorker) LoadRef(ctx context.Context, id string, hidden bool) (cache.ImmutableRef, error) {
	r, err := w.Worker.LoadRef(ctx, id, hidden)
	if err != nil || r == nil || !lazypull.Partial(r) {
		return r, err
	}
	return wrap(r, w.parts, w.asked), nil
}

// Source is a source of images that are fetched late for the builds for which asked is true. The manager is [Plain]'s.
func Source(s source.Source, m cache.Manager, asked func(session.Group) bool) source.Source {
	parts, _ := m.(inParts)
	return lateSource{s, parts, asked}
}

type lateSource struct {
	source.Source
	parts inParts
	asked func(session.Group) bool
}

func (s lateSource) Resolve(ctx context.Context, id source.Identifier, sm *session.Manager, v solver.Vertex) (source.SourceInstance, error) {
	i, err := s.Source.Resolve(ctx, id, sm, v)
	if err != nil {
		return nil, err
	}
	return lateInstance{i, s.parts, s.asked}, nil
}

type lateInstance struct {
	source.SourceInstance
	parts inParts
	asked func(session.Group) bool
}

func (i lateInstance) Snapshot(ctx context.Context, jobCtx solver.JobContext) (cache.ImmutableRef, error) {
	r, err := i.SourceInstance.Snapshot(ctx, jobCtx)
	if err != nil || r == nil || jobCtx == nil || !i.asked(jobCtx.Session()) {
		return r, err
	}
	return wrap(r, i.parts, nil), nil
}
