package process

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// greetTimeout is how long a connection may take to say what it is for.
const greetTimeout = 10 * time.Second

// house keeps count of the holds, and hands connections to the services that they are for.
type house struct {
	welcome   welcome
	listeners map[string]*listener
	idle      chan struct{} // closed when nobody needs the engine any more

	mu    sync.Mutex
	holds map[net.Conn]bool
	used  bool       // there was a hold
	left  []net.Conn // of holds given up at the end: kept, or they would be closed as garbage
	ended bool       // idle is closed; no new holds
}

func newHouse(w welcome, listeners map[string]*listener) *house {
	return &house{welcome: w, listeners: listeners, idle: make(chan struct{}), holds: map[net.Conn]bool{}}
}

func (h *house) accept(ln net.Listener) {
	for {
		c, err := ln.Accept()
		switch {
		case err == nil:
			go h.greet(c)
		case errors.Is(err, net.ErrClosed):
			return
		default: // no descriptors left, for now: an engine that stopped here could be joined by nobody
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func (h *house) greet(c net.Conn) {
	_ = c.SetReadDeadline(time.Now().Add(greetTimeout))
	hi, err := readHello(c)
	_ = c.SetReadDeadline(time.Time{})
	if err != nil {
		c.Close()
		return
	}
	if hi.Service == serviceHold {
		h.hold(c, hi)
		return
	}
	if l, ok := h.listeners[hi.Service]; ok && hi.Build == h.welcome.Build {
		l.give(c)
		return
	}
	c.Close()
}

func (h *house) hold(c net.Conn, hi hello) {
	line, err := json.Marshal(h.welcome)
	if err != nil {
		c.Close()
		return
	}
	line = append(line, '\n')
	if hi.Build != h.welcome.Build { // is told so, and waits for our end
		_, _ = c.Write(line)
		c.Close()
		return
	}
	if !h.enter(c, line) {
		c.Close()
		return
	}
	_, _ = io.Copy(io.Discard, c)
	h.leave(c)
}

// enter counts a hold in and greets it, unless the engine is already ending.
func (h *house) enter(c net.Conn, line []byte) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return false
	}
	if _, err := c.Write(line); err != nil {
		return false
	}
	h.holds[c] = true
	h.used = true
	return true
}

// leave counts a hold out. Its connection is closed, unless the engine ends with it: the other end takes the end of the
// connection for the end of the process.
func (h *house) leave(c net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.holds, c)
	if len(h.holds) == 0 && !h.ended {
		h.ended = true
		close(h.idle)
	}
	if h.ended {
		h.left = append(h.left, c)
		return
	}
	c.Close()
}

// abandon ends an engine whose starter died before it, or anybody else, had a hold.
func (h *house) abandon() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.used && !h.ended {
		h.ended = true
		close(h.idle)
	}
}

// stop refuses holds from now on, and tells those who have one that the engine ends.
func (h *house) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ended {
		h.ended = true
		close(h.idle)
	}
	for c := range h.holds {
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = c.Write([]byte{endsEarly})
	}
}

// release lets those go who wait for the end of the process, although it stays.
func (h *house) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.left {
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = c.Write([]byte{lingers})
		c.Close()
	}
	h.left = nil
}

// listener is a net.Listener fed with connections that were accepted elsewhere.
type listener struct {
	service string
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func newListener(service string) *listener {
	return &listener{service: service, conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *listener) give(c net.Conn) {
	select {
	case l.conns <- c:
	case <-l.closed:
		c.Close()
	}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: "optbuild-" + l.service, Net: "unix"} }
