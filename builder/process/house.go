package process

import (
	"encoding/json"
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
	holds int
	used  bool // there was a hold
	ended bool // idle is closed; no new holds
}

func newHouse(w welcome, listeners map[string]*listener) *house {
	return &house{welcome: w, listeners: listeners, idle: make(chan struct{})}
}

func (h *house) accept(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go h.greet(c)
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
	counts := hi.Build == h.welcome.Build // who is of another build is told so, and waits for our end
	if counts && !h.enter() {
		c.Close()
		return
	}
	if _, err := c.Write(append(line, '\n')); err == nil {
		_, _ = io.Copy(io.Discard, c)
	}
	if counts && h.leave() {
		return // without closing: the other end takes the end of the connection for the end of the process
	}
	c.Close()
}

// enter counts a hold in, unless the engine is already ending.
func (h *house) enter() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return false
	}
	h.holds++
	h.used = true
	return true
}

// leave counts a hold out and reports whether it was the last.
func (h *house) leave() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.holds--
	if h.holds == 0 && !h.ended {
		h.ended = true
		close(h.idle)
	}
	return h.ended
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

// close refuses holds from now on.
func (h *house) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ended {
		h.ended = true
		close(h.idle)
	}
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
