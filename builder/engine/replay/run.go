package replay

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"path"
	"time"

	"github.com/moby/buildkit/executor"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/buildkit/util/progress"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/builder/outcome"
	"github.com/optbuild/optbuild/builder/trace"
	"github.com/optbuild/optbuild/builder/trace/store"
	"github.com/optbuild/optbuild/snapshot"
)

// Run replays the step, or runs it. Whatever goes wrong with watching or replaying costs a run of the step, never the build; what goes wrong with running it is the
// executor's error, as without us.
func (e *stepExecutor) Run(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, process executor.ProcessInfo, started chan<- struct{}) (resourcestypes.Recorder, error) {
	st := e.step
	unwatched := func(o outcome.Outcome) (resourcestypes.Recorder, error) {
		o.Result = outcome.Unwatched
		st.tell(ctx, o)
		return e.Executor.Run(ctx, id, root, mounts, process, started)
	}
	if st.late(ctx) {
		if started != nil {
			close(started)
		}
		return nil, nil
	}
	if err := st.ready(ctx); err != nil {
		return nil, err
	}
	in, err := st.examine(ctx, mounts)
	var why unwatchable
	switch {
	case err == nothingCopied:
		return e.Executor.Run(ctx, id, root, mounts, process, started)
	case errors.As(err, &why):
		return unwatched(outcome.Outcome{Unseen: string(why)})
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		logrus.WithError(err).Warnf("examine %s", st.name)
		return unwatched(outcome.Outcome{Unseen: "its inputs could not be examined"})
	}
	st.mu.Lock()
	st.portable, st.watched = in.portable, in.watched
	st.mu.Unlock()
	if st.r.debug.hash {
		logrus.Infof("key of %s %x:%s", st.name, in.weak, in.record)
	}
	hit, reasons := st.find(in)
	if hit != nil && !st.r.debug.verify {
		if st.replayed(ctx, in, hit) {
			if started != nil {
				close(started)
			}
			return nil, nil
		}
		reasons = []string{"its stored layer is gone"}
	}
	if hit == nil && st.elsewhere(ctx, in) {
		if started != nil {
			close(started)
		}
		return nil, nil
	}
	if err := st.r.supported(); err != nil {
		st.remember(in)
		return unwatched(outcome.Outcome{Unseen: err.Error(), Machine: true, Reason: first(reasons)})
	}
	slot := st.slot()
	if st.r.traces.Skip(slot) && hit == nil {
		st.remember(in)
		rec, err := unwatched(outcome.Outcome{Unseen: "it looked at nearly everything when it was watched last", Reason: first(reasons)})
		if err == nil {
			st.noteRead(st.root.Directory)
		}
		return rec, err
	}
	w, err := st.watch(in)
	if err != nil {
		logrus.WithError(err).Warnf("watch %s", st.name)
		st.remember(in)
		return unwatched(outcome.Outcome{Unseen: "it could not be: " + err.Error(), Reason: first(reasons)})
	}
	begun := now()
	rec, runErr := e.Executor.Run(w.context(ctx), id, root, w.mounts(mounts), process, started)
	seen, err := w.close()
	o := outcome.Outcome{Result: outcome.Executed, Reason: first(reasons), Details: reasons}
	if err == nil && runErr == nil {
		err = dropBare(st.root.Directory, st.root.Lower, begun, now())
	}
	if err == nil && runErr == nil {
		if hit != nil && st.r.debug.verify {
			if err := st.verify(hit); err != nil {
				return rec, err
			}
			if err := st.discard(); err != nil {
				return rec, err
			}
			if st.replayed(ctx, in, hit) { // so that what comes next is found, too
				return rec, nil
			}
			return rec, errors.New("verify: the stored layer of " + st.name + " is gone")
		}
		o.Observed, err = st.keep(ctx, in, seen, begun)
	}
	if err != nil {
		logrus.WithError(err).Warnf("store what %s looked at", st.name)
		o.Result, o.Unseen = outcome.Unwatched, "what it looked at is not known: "+err.Error()
	}
	if runErr == nil {
		st.remember(in)
	}
	st.tell(ctx, o)
	return rec, explain(runErr, err, process.Stderr)
}

// find returns the stored trace that holds, or says why none does: what has changed since the newest of them.
func (st *step) find(in *inputs) (*trace.Trace, []string) {
	if st.noCache {
		return nil, []string{"the cache was not to be used"}
	}
	var reasons []string
	problem := func(message string) { logrus.Warnf("stored trace of %s: %s", st.name, message) }
	for t := range st.r.traces.Lookup(in.weak, problem) {
		d, err := st.check(in, t)
		switch {
		case err != nil:
			logrus.WithError(err).Warnf("check a stored trace of %s", st.name)
		case d == nil:
			return t, nil
		case reasons == nil:
			reasons = []string{d.Text(in.show(d))}
		}
	}
	if reasons != nil {
		return nil, reasons
	}
	last, ok := st.r.traces.Last(st.slot())
	if !ok {
		return nil, []string{outcome.FirstBuild}
	}
	if reasons = store.Changes(*last, in.record); len(reasons) > 0 {
		return nil, reasons
	}
	return nil, []string{"nothing is stored of what it looked at"}
}

// check compares what a stored run observed with the directories of today.
func (st *step) check(in *inputs, t *trace.Trace) (*trace.Difference, error) {
	if !st.r.layers.Shared(t.Layer) {
		return nil, errors.New("it is of another step")
	}
	return st.compare(in, t)
}

// compare is check for a trace that is not stored here, too.
func (st *step) compare(in *inputs, t *trace.Trace) (*trace.Difference, error) {
	if len(t.Layers) != len(in.watched) {
		return nil, errors.New("it is of another step")
	}
	dirs := make([]string, len(in.watched))
	for i, w := range in.watched {
		dirs[i] = w.dir
	}
	same, err := in.same(t)
	if err != nil {
		return nil, err
	}
	return t.CheckExcept(dirs, same)
}

// show returns how the names of a difference are told: as the step sees them.
func (in *inputs) show(d *trace.Difference) func(string) string {
	dest := in.watched[d.Layer].dest
	return func(name string) string { return path.Join("/", dest, name) }
}

// replayed is true when the layer of a stored run is the step's result. That is told.
func (st *step) replayed(ctx context.Context, in *inputs, hit *trace.Trace) bool {
	if err := st.replay(ctx, hit); err != nil {
		logrus.WithError(err).Warnf("replay %s", st.name)
		return false
	}
	st.r.traces.Touch(hit.Weak, hit.Layer)
	st.remember(in)
	st.tell(ctx, outcome.Outcome{Result: outcome.Replayed, Observed: observed(hit.Layers)})
	return true
}

// replay takes the layer that the step made then: the step's new snapshot becomes an alias of it.
func (st *step) replay(ctx context.Context, t *trace.Trace) error {
	if err := st.r.layers.Alias(ctx, st.root.Key, t.Layer); err != nil {
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.stored, st.layer = t.Layer, t.Layer
	return nil
}

// keep stores the layer that the step has made, with what the step looked at.
func (st *step) keep(ctx context.Context, in *inputs, seen [][]trace.Seen, begun time.Time) (int, error) {
	t := &trace.Trace{Weak: in.weak, Layer: newID(), Started: begun, Ended: now(), Layers: make([]trace.Layer, len(seen))}
	for i, s := range seen {
		var err error
		if t.Layers[i], err = trace.Capture(in.watched[i].dir, s); err != nil {
			return 0, err
		}
	}
	if err := in.countTimes(t.Layers); err != nil {
		return 0, err
	}
	if st.r.debug.trace {
		for i, s := range seen {
			for _, name := range s {
				logrus.Infof("%s: %s: %d %s %s", st.name, in.watched[i].name, name.Order, name.What, name.Path)
			}
		}
	}
	n := observed(t.Layers)
	if n > nearlyAllFrom && sawNearlyAll(in, t.Layers) {
		if err := st.r.traces.SetSkip(st.slot(), skipRuns); err != nil {
			logrus.WithError(err).Warn("store what need not be watched")
		}
	}
	if err := st.r.layers.Share(ctx, st.root.Key, t.Layer); err != nil {
		return n, err
	}
	if readsContext(t.Layers) {
		st.noteRead(st.r.layers.FilesPath(t.Layer))
	}
	if err := st.r.traces.Put(t); err != nil {
		return n, err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.layer = t.Layer
	return n, nil
}

// noteRead notes beside a layer that it depends on the context, for package export.
func (st *step) noteRead(dir string) {
	if err := snapshot.SetContextRead(dir); err != nil {
		logrus.WithError(err).Warnf("note that %s has read the context", st.name)
	}
}

// readsContext is true if anything was asked about a file that is there, or for a listing: what another context has otherwise. That a directory is there, or a
// name is not, all commands ask that look for their own configuration in the directory that they are started in.
func readsContext(layers []trace.Layer) bool {
	for _, l := range layers {
		for _, e := range l.Entries {
			if e.What&(trace.Read|trace.Listed) != 0 || e.What&trace.Absent == 0 && e.Mode&unix.S_IFMT != unix.S_IFDIR {
				return true
			}
		}
	}
	return false
}

// A step that looks at nearly everything gains nothing from being watched.
const (
	skipRuns      = 5    // so many runs are not watched then
	nearlyAllFrom = 1000 // names; fewer cost nothing
)

func (st *step) remember(in *inputs) {
	if err := st.r.traces.SetLast(st.slot(), in.record); err != nil {
		logrus.WithError(err).Warnf("store what %s depends on", st.name)
	}
}

func observed(layers []trace.Layer) (n int) {
	for _, l := range layers {
		n += len(l.Entries)
	}
	return n
}

func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// tell shows what became of the step. There is one such line at most for a run.
func (st *step) tell(ctx context.Context, o outcome.Outcome) {
	o.Vertex, o.Step, o.Platform = st.vertex, st.name, st.platform
	tell(ctx, o)
}

func tell(ctx context.Context, o outcome.Outcome) {
	pw, ok, _ := progress.NewFromContext(ctx)
	if !ok {
		return
	}
	defer pw.Close()
	id, action := o.Status()
	at := now()
	if err := pw.Write(id, progress.Status{Action: action, Started: &at, Completed: &at}); err != nil {
		logrus.WithError(err).Debug("tell outcome")
	}
}
