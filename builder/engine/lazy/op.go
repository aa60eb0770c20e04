package lazy

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/worker"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
)

// Op is a file operation that was made twice: with a Manager, and without one, for when that can't do it.
func (f *Files) Op(late, plain solver.Op) solver.Op {
	op := fileOp{late, plain}
	if f.parts != nil {
		return readsInParts{op, f.parts}
	}
	return op
}

type fileOp struct {
	solver.Op
	plain solver.Op
}

// Exec also does it again on the layers themselves when it fails on a skeleton: an archive's links may lead to what is in no list of names, and what does fail fails in its own words.
func (o fileOp) Exec(ctx context.Context, jobCtx solver.JobContext, inputs []solver.Result) ([]solver.Result, error) {
	var used atomic.Bool
	out, err := o.Op.Exec(context.WithValue(ctx, usedKey{}, &used), jobCtx, inputs)
	if err != nil && used.Load() && ctx.Err() == nil {
		logrus.WithError(err).Debug("layers are fetched for a file operation")
		return o.plain.Exec(ctx, jobCtx, inputs)
	}
	return out, err
}

// usedKey is the key of what is set when an operation gets a skeleton.
type usedKey struct{}

// readsInParts is a file operation that reads what has not been fetched in parts.
type readsInParts struct {
	solver.Op
	m inParts
}

// CacheMap has what the operation reads known by its content, as ever; that is read in parts, too. What is noted of it belongs to the record of the parts.
func (o readsInParts) CacheMap(ctx context.Context, jobCtx solver.JobContext, index int) (*solver.CacheMap, bool, error) {
	m, done, err := o.Op.CacheMap(ctx, jobCtx, index)
	if err != nil || m == nil {
		return m, done, err
	}
	parted := *m
	parted.Deps = slices.Clone(m.Deps)
	for i, d := range m.Deps {
		if d.ComputeDigestFunc != nil {
			parted.Deps[i].ComputeDigestFunc = o.digest(d.ComputeDigestFunc)
		}
	}
	return &parted, done, nil
}

func (o readsInParts) digest(of solver.ResultBasedCacheFunc) solver.ResultBasedCacheFunc {
	return func(ctx context.Context, in solver.Result, g session.Group) (digest.Digest, error) {
		unread := o.m.Unread()
		if w, ok := in.Sys().(*worker.WorkerRef); ok && Pending(w.ImmutableRef) {
			on := instead(ctx, o.m, w.ImmutableRef, g)
			if on != nil {
				defer release(ctx, on)
			} else {
				on = Unwrap(w.ImmutableRef)
			}
			in = readResult{in, &worker.WorkerRef{ImmutableRef: on, Worker: w.Worker}}
		}
		d, err := of(ctx, in, g)
		return d, because(err, unread)
	}
}

// Exec is the operation's.
func (o readsInParts) Exec(ctx context.Context, jobCtx solver.JobContext, inputs []solver.Result) ([]solver.Result, error) {
	unread := o.m.Unread()
	list, done := readers(o.m, inputs)
	defer done(ctx)
	out, err := o.Op.Exec(ctx, jobCtx, list)
	return out, because(err, unread)
}

// because is an error with why files could not be read: the operation knows of an I/O error only.
func because(err error, unread func() error) error {
	if err == nil {
		return nil
	}
	if why := unread(); why != nil {
		return fmt.Errorf("%w (%v)", why, err)
	}
	return err
}
