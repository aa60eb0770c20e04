package viewer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/optbuild/optbuild/builder/trace"
)

// client is the engine's end of a connection to a viewer.
type client struct {
	conn     net.Conn
	requests *sender
	ended    chan struct{} // closed when the viewer is gone
	reason   error         // why it ended; to be read after ended is closed

	mu    sync.Mutex
	last  uint64 // request
	calls map[uint64]*call
}

// call is a request that waits for its answer.
type call struct {
	seen [][]trace.Seen // by view
	done chan error
}

// newClient reads answers from conn. When that is at its end, or makes no sense, end is called, which returns when the viewer is gone and says
// why.
func newClient(conn net.Conn, end func() error) *client {
	c := &client{conn: conn, requests: newSender(conn), ended: make(chan struct{}), calls: map[uint64]*call{}}
	go func() {
		err := c.receive()
		conn.Close()
		c.reason = fmt.Errorf("%w: %w", ErrEnded, errors.Join(end(), ignoreEnd(err)))
		close(c.ended)
	}()
	return c
}

// receive hands out the parts of answers, until there are no more.
func (c *client) receive() error {
	answers := newReceiver(c.conn)
	for {
		var a answer
		if err := answers.Decode(&a); err != nil {
			return err
		}
		c.mu.Lock()
		call := c.calls[a.ID]
		if !a.More {
			delete(c.calls, a.ID)
		}
		c.mu.Unlock()
		switch {
		case call == nil: // nobody waits any more
		case !a.More && a.Error != "":
			call.done <- errors.New(a.Error)
		case !a.More:
			call.done <- nil
		case a.View < 0 || a.View >= len(call.seen):
			return fmt.Errorf("an answer is about view %d of %d", a.View, len(call.seen))
		default:
			call.seen[a.View] = append(call.seen[a.View], a.Seen...)
		}
	}
}

// ask sends a request and waits for its answer, which is about so many views. It returns the number of the request.
func (c *client) ask(ctx context.Context, r request, views int) (id uint64, seen [][]trace.Seen, err error) {
	call := &call{seen: make([][]trace.Seen, views), done: make(chan error, 1)}
	c.mu.Lock()
	c.last++
	r.ID = c.last
	c.calls[r.ID] = call
	c.mu.Unlock()
	if err := c.requests.send(r); err != nil {
		<-c.ended // the connection is broken
		return 0, nil, c.reason
	}
	select {
	case err := <-call.done:
		return r.ID, call.seen, err
	case <-c.ended:
		return 0, nil, c.reason
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.calls, r.ID)
		c.mu.Unlock()
		return 0, nil, fmt.Errorf("wait for an answer: %w", context.Cause(ctx))
	}
}
