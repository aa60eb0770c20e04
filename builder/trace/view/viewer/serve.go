package viewer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/optbuild/optbuild/builder/trace"
)

// mountFunc mounts a view; order counts first touches. It is [view.Mount], or something else in tests.
type mountFunc func(d Directory, order *atomic.Uint32) (served, error)

type seer interface {
	Seen() ([]trace.Seen, error)
}

// server is the viewer's end of a connection.
type server struct {
	mount   mountFunc
	answers *sender
	ctx     context.Context // ends with the connection

	work sync.WaitGroup

	mu   sync.Mutex
	open map[uint64][]served // by the request that mounted them
}

// serve answers requests until the other end is closed, and then takes down the views that are left.
func serve(conn io.ReadWriter, mount mountFunc) error {
	ctx, cancel := context.WithCancel(context.Background())
	s := &server{mount: mount, answers: newSender(conn), ctx: ctx, open: map[uint64][]served{}}
	requests := newReceiver(conn)
	var err error
	for {
		var r request
		if err = requests.Decode(&r); err != nil {
			break
		}
		s.work.Go(func() { s.handle(r) })
	}
	cancel()
	s.work.Wait()
	for _, views := range s.open {
		s.closeAll(ctx, views)
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return fmt.Errorf("read request: %w", err)
}

func (s *server) handle(r request) {
	var err error
	if r.Close == 0 {
		err = s.mountAll(r)
	} else {
		err = s.close(r)
	}
	last := answer{ID: r.ID}
	if err != nil {
		last.Error = err.Error()
	}
	s.send(last)
}

// send has no error: when the connection is broken, reading from it tells, too.
func (s *server) send(a answer) { _ = s.answers.send(a) }

func (s *server) mountAll(r request) error {
	var order atomic.Uint32 // the views of a request are those of one step
	var views []served
	for _, d := range r.Mount {
		v, err := s.mount(d, &order)
		if err != nil {
			return errors.Join(err, s.closeAll(s.ctx, views))
		}
		views = append(views, v)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[r.ID] = views
	return nil
}

// close closes the views of a request and sends what each of them has seen.
func (s *server) close(r request) error {
	s.mu.Lock()
	views, ok := s.open[r.Close]
	delete(s.open, r.Close)
	s.mu.Unlock()
	if !ok {
		return fmt.Errorf("close views of request %d: there are none", r.Close)
	}
	ctx, cancel := context.WithTimeout(s.ctx, r.Wait)
	err := s.closeAll(ctx, views)
	cancel()
	if err != nil {
		return err
	}
	for i, v := range views {
		seen, err := v.Seen()
		if err != nil {
			return err
		}
		for part := range slices.Chunk(seen, chunk) {
			s.send(answer{ID: r.ID, View: i, Seen: part, More: true})
		}
	}
	return nil
}

// closeAll takes views down, at the same time: each of them has until the end of ctx. One that others still hold after that gives back what it has
// when they end.
func (s *server) closeAll(ctx context.Context, views []served) error {
	errs := make([]error, len(views))
	var wg sync.WaitGroup
	for i, v := range views {
		wg.Go(func() {
			if errs[i] = v.Close(ctx); errs[i] == nil || s.ctx.Err() != nil {
				return
			}
			s.work.Go(func() {
				late, cancel := context.WithTimeout(s.ctx, lateWait)
				defer cancel()
				_ = v.Close(late)
			})
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// lateWait bounds nothing but mistakes.
const lateWait = 24 * time.Hour
