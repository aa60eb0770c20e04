package store

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/identity"
	"github.com/opencontainers/go-digest"
)

// task reports one operation (a pull, a push) as a vertex, and the blobs that it moves as the vertex's statuses.
type task struct {
	mu     sync.Mutex
	send   func(*client.SolveStatus)
	vertex client.Vertex
}

func (s *Store) task(format string, args ...any) *task {
	now := time.Now()
	t := &task{send: s.status, vertex: client.Vertex{
		Digest: digest.FromString(identity.NewID()), Name: fmt.Sprintf(format, args...), Started: &now,
	}}
	t.update()
	return t
}

func (t *task) update() {
	v := t.vertex
	t.send(&client.SolveStatus{Vertexes: []*client.Vertex{&v}})
}

// end reports the operation's outcome.
func (t *task) end(err *error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.vertex.Completed = &now
	if *err != nil {
		t.vertex.Error = (*err).Error()
	}
	t.update()
}

// reportInterval is how often a blob's progress is reported; displays refresh at about this rate.
const reportInterval = 100 * time.Millisecond

// transfer is the progress of one blob.
type transfer struct {
	task   *task
	status client.VertexStatus
	last   time.Time
}

// blob begins the report about one blob; end it with done.
func (t *task) blob(name string, d digest.Digest, size int64) *transfer {
	now := time.Now()
	b := &transfer{task: t, status: client.VertexStatus{
		ID: name + " " + d.String(), Vertex: t.vertex.Digest, Total: size, Started: &now,
	}}
	b.report(now)
	return b
}

func (b *transfer) report(now time.Time) {
	b.task.mu.Lock()
	defer b.task.mu.Unlock()
	b.last, b.status.Timestamp = now, now
	status := b.status
	b.task.send(&client.SolveStatus{Statuses: []*client.VertexStatus{&status}})
}

func (b *transfer) add(n int) {
	b.status.Current += int64(n)
	if now := time.Now(); now.Sub(b.last) >= reportInterval {
		b.report(now)
	}
}

func (b *transfer) done() {
	now := time.Now()
	b.status.Completed = &now
	b.report(now)
}

// counted reports what is read from rc, until it is closed. It can seek when rc can: that is how an interrupted download goes on.
func counted(rc io.ReadCloser, b *transfer) io.ReadCloser {
	r := countedReader{rc, b}
	if s, ok := rc.(io.Seeker); ok {
		return struct {
			countedReader
			io.Seeker
		}{r, s}
	}
	return r
}

type countedReader struct {
	io.ReadCloser
	blob *transfer
}

func (r countedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.blob.add(n)
	return n, err
}

func (r countedReader) Close() error {
	r.blob.done()
	return r.ReadCloser.Close()
}
