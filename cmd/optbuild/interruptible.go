package main

import (
	"context"
	"io"
	"os"
	"sync"
)

// interruptible returns a reader of f whose reads end when ctx does: f may be a pipe or a terminal that gives nothing, and
// nothing else wakes a process that reads from it. Nothing is read before the first Read.
func interruptible(ctx context.Context, f *os.File) io.Reader {
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		return f // never waits for anybody
	}
	return &interruptibleReader{ctx: ctx, from: f}
}

type interruptibleReader struct {
	ctx  context.Context // an io.Reader has no other way to learn of it
	from io.Reader
	once sync.Once
	pipe *io.PipeReader
}

func (r *interruptibleReader) Read(b []byte) (int, error) {
	r.once.Do(func() {
		var w *io.PipeWriter
		r.pipe, w = io.Pipe()
		go func() { // may be left in a read, until the process ends
			_, err := io.Copy(w, r.from)
			w.CloseWithError(err)
		}()
		context.AfterFunc(r.ctx, func() { r.pipe.CloseWithError(context.Cause(r.ctx)) })
	})
	n, err := r.pipe.Read(b)
	if err == io.ErrClosedPipe { // what a pipe says to a reader that has closed it
		err = context.Cause(r.ctx)
	}
	return n, err
}
