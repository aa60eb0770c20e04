package compress

import (
	"bytes"
	"context"
	"io"
	"sync"

	"golang.org/x/sync/semaphore"
)

// sequence compresses pieces at once and writes them in the order in which they were added.
//
//	add ──> jobs (in order) ──────────────> writer: waits for each, writes it
//	   └──> a goroutine for each piece, as many at once as there are cores
//
// What is held in memory is bounded, in bytes and pieces. A sequence must be closed: its goroutines end then.
type sequence struct {
	dst    io.Writer
	jobs   chan *job
	cores  chan struct{}
	held   *semaphore.Weighted // bytes of pieces that are not written yet
	most   int64               // of them
	ended  chan struct{}       // closed when the writer has ended
	length int64               // of what was written, in bytes; valid when it has ended

	mu  sync.Mutex
	err error
}

// job is one piece.
type job struct {
	in    *bytes.Buffer
	out   *bytes.Buffer
	held  int64
	ready chan error
	at    func(int64) // is told where in the output the piece begins; may be nil
}

// Bounds of what is held: small pieces are many, so that all cores have work while a large one is waited for.
const (
	heldBytes  = 8 << 20 // for each core
	heldPieces = 512
)

func newSequence(dst io.Writer, cores int) *sequence {
	s := &sequence{
		dst: dst, jobs: make(chan *job, heldPieces), cores: make(chan struct{}, cores), ended: make(chan struct{}),
		held: semaphore.NewWeighted(int64(cores) * heldBytes), most: int64(cores) * heldBytes,
	}
	go s.write()
	return s
}

// add gives a piece to compress: f does it, in another goroutine. The buffer in belongs to the sequence from then on. at, if it is not nil, is told where the piece begins
// before close returns. add blocks while enough is held.
func (s *sequence) add(in *bytes.Buffer, f func(out, in *bytes.Buffer) error, at func(int64)) error {
	if err := s.failed(); err != nil {
		return err
	}
	j := &job{in: in, out: newBuffer(), held: min(int64(in.Len()), s.most), ready: make(chan error, 1), at: at}
	if err := s.held.Acquire(context.Background(), j.held); err != nil {
		return err
	}
	s.cores <- struct{}{}
	go func() {
		defer func() { <-s.cores }()
		j.ready <- f(j.out, j.in)
	}()
	s.jobs <- j
	return nil
}

// close waits until everything is written and returns how many bytes that were.
func (s *sequence) close() (int64, error) {
	close(s.jobs)
	<-s.ended
	return s.length, s.failed()
}

func (s *sequence) write() {
	defer close(s.ended)
	for j := range s.jobs {
		err := <-j.ready
		if j.at != nil {
			j.at(s.length)
		}
		if err == nil && s.failed() == nil {
			var n int
			n, err = s.dst.Write(j.out.Bytes())
			s.length += int64(n)
		}
		s.fail(err)
		freeBuffer(j.in)
		freeBuffer(j.out)
		s.held.Release(j.held)
	}
}

func (s *sequence) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// fail remembers the first error.
func (s *sequence) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
}

// buffers hold pieces, before and after.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func newBuffer() *bytes.Buffer { return buffers.Get().(*bytes.Buffer) }

func freeBuffer(b *bytes.Buffer) {
	b.Reset()
	buffers.Put(b)
}
