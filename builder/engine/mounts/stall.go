package mounts

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// stallTime is how long a step waits for the next bytes of a mount before it goes on without. A variable for tests.
var stallTime = 10 * time.Second

// errStalled is why the context that untilStalled returns has ended.
var errStalled = errors.New("nothing came for too long")

// untilStalled returns a context that ends when nothing was read for a while from the blobs that come with it. The caller calls stop.
func untilStalled(ctx context.Context, blobs content.Provider) (_ context.Context, _ content.Provider, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watched{Provider: blobs}
	done := make(chan struct{})
	go func() {
		defer close(done)
		last := int64(-1)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(stallTime):
			}
			n := w.reads.Load()
			if n == last && w.waiting.Load() > 0 {
				cancel(errStalled)
				return
			}
			last = n
		}
	}()
	return ctx, w, func() { cancel(nil); <-done }
}

// watched counts what is read.
type watched struct {
	content.Provider
	reads   atomic.Int64 // that have ended
	waiting atomic.Int64 // that have not
}

func (w *watched) begin() func() {
	w.waiting.Add(1)
	return func() { w.waiting.Add(-1); w.reads.Add(1) }
}

func (w *watched) ReaderAt(ctx context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	defer w.begin()()
	ra, err := w.Provider.ReaderAt(ctx, d)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = errors.Join(cause, err)
		}
		return nil, err
	}
	return &watchedReader{ra, w, ctx}, nil
}

type watchedReader struct {
	content.ReaderAt
	w   *watched
	ctx context.Context // of the restore, which ended if reading did for that reason
}

func (r *watchedReader) ReadAt(p []byte, off int64) (int, error) {
	defer r.w.begin()()
	n, err := r.ReaderAt.ReadAt(p, off)
	if cause := context.Cause(r.ctx); err != nil && cause != nil {
		err = errors.Join(cause, err)
	}
	return n, err
}
