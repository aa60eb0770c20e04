package process

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// open starts a house on a state directory's socket, as an engine does.
func open(t *testing.T) (Dir, *house) {
	d := testDir(t)
	ln, err := d.listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	h := newHouse(welcome{Build: "b1", PID: 7, Notices: []string{"note"}, Kind: SubIDs}, map[string]*listener{ServiceStore: newListener(ServiceStore)})
	go h.accept(ln)
	return d, h
}

func closed(t *testing.T, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s: still waiting", what)
	}
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// leave closes a hold and lets go of it as the end of the process would.
func leave(t *testing.T, h *house, c *Conn) {
	t.Helper()
	done := make(chan struct{})
	go func() { c.Close(); close(done) }()
	closed(t, "idle", h.idle)
	for end := time.Now().Add(10 * time.Second); !isClosed(done) && time.Now().Before(end); runtime.Gosched() {
		h.mu.Lock()
		for _, l := range h.left {
			l.Close()
		}
		h.mu.Unlock()
	}
	closed(t, "close of the last hold", done)
}

// refusing is a listener that is out of descriptors at first.
type refusing struct {
	net.Listener
	refused bool
}

func (l *refusing) Accept() (net.Conn, error) {
	if !l.refused {
		l.refused = true
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

func TestAcceptGoesOn(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	ln := newListener("")
	h := newHouse(welcome{}, nil)
	ended := make(chan struct{})
	go func() { h.accept(&refusing{Listener: ln}); close(ended) }()
	ln.give(ours) // returns when it was accepted
	ln.Close()
	closed(t, "accept on a closed listener", ended)
}

func TestHolds(t *testing.T) {
	d, h := open(t)
	a, err := join(t.Context(), d, "b1")
	if err != nil {
		t.Fatal(err)
	}
	if a.PID != 7 || a.Kind != SubIDs || strings.Join(a.Notices, "") != "note" {
		t.Errorf("greeted with %+v", a)
	}
	b, err := join(t.Context(), d, "b1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := join(t.Context(), d, "b2"); !errors.Is(err, errOtherBuild) {
		t.Errorf("another build joins: %v", err)
	}
	a.Close() // returns although the engine goes on
	if isClosed(h.idle) || isClosed(b.Lost()) {
		t.Fatal("the engine ends with its starter while somebody else needs it")
	}
	h.abandon() // the starter's death does not matter any more
	if isClosed(h.idle) {
		t.Fatal("the engine ends with its starter while somebody else needs it")
	}
	leave(t, h, b)
	if c, err := join(t.Context(), d, "b1"); err == nil {
		t.Errorf("joined an engine that ends: %+v", c)
	}
	h.abandon()
	h.stop()
}

func TestAbandon(t *testing.T) {
	_, h := open(t)
	h.abandon()
	closed(t, "idle", h.idle)
}

func TestStopTellsHolders(t *testing.T) {
	d, h := open(t)
	if err := os.WriteFile(d.Log(), []byte("panic: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := join(t.Context(), d, "b1")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := c.Watch(t.Context())
	defer cancel()
	if err := c.LostWithin(0); err != nil {
		t.Fatal(err)
	}
	h.stop()
	closed(t, "lost", c.Lost())
	closed(t, "watched context", ctx.Done())
	var lost *LostError
	want := "the engine (process 7) was killed or stopped; its log is " + d.Log() + " and ends with: panic: x"
	if !errors.As(context.Cause(ctx), &lost) || lost.Error() != want {
		t.Errorf("got %v, want %s", context.Cause(ctx), want)
	}
	if _, err := c.Dial(t.Context(), ServiceStore); !errors.As(err, &lost) {
		t.Errorf("dials an engine that ends: %v", err)
	}
	leave(t, h, c)
}

func TestServices(t *testing.T) {
	d, h := open(t)
	c, err := join(t.Context(), d, "b1")
	if err != nil {
		t.Fatal(err)
	}
	nc, err := c.Dial(t.Context(), ServiceStore)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Write([]byte("after the hello")); err != nil {
		t.Fatal(err)
	}
	l := h.listeners[ServiceStore]
	got, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len("after the hello"))
	if _, err := io.ReadFull(got, b); err != nil || string(b) != "after the hello" {
		t.Errorf("the service reads %q, %v", b, err)
	}
	got.Close()
	l.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed listener accepts: %v", err)
	}
	for _, service := range []string{"none", ServiceStore} { // the second is closed now
		nc, err := c.Dial(t.Context(), service)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := nc.Read(b); n != 0 || err == nil {
			t.Errorf("service %s answers", service)
		}
		nc.Close()
	}
	leave(t, h, c)
}

func TestReadHello(t *testing.T) {
	for in, want := range map[string]string{
		`{"service":"hold","build":"b"}` + "\nrest": "{hold b} rest=rest err=false",
		"\n":                             "{ } rest= err=true",
		"no line":                        "{ } rest= err=true",
		strings.Repeat("x", 5000) + "\n": "{ } rest=" + strings.Repeat("x", 904) + "\n err=true",
	} {
		r := strings.NewReader(in)
		h, err := readHello(r)
		rest, _ := io.ReadAll(r)
		got := "{" + h.Service + " " + h.Build + "} rest=" + string(rest) + " err=" + map[bool]string{true: "true", false: "false"}[err != nil]
		if got != want {
			t.Errorf("%.20q: got %s, want %s", in, got, want)
		}
	}
}

// TestDeepSocket joins through a path that does not fit into a socket address.
func TestDeepSocket(t *testing.T) {
	d, err := OpenDir(filepath.Join(t.TempDir(), strings.Repeat("a", 120), strings.Repeat("b", 60)))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time over the socket that the first left
		ln, err := d.listen()
		if err != nil {
			t.Fatal(err)
		}
		h := newHouse(welcome{Build: "b"}, nil)
		go h.accept(ln)
		c, err := join(t.Context(), d, "b")
		if err != nil {
			t.Fatal(err)
		}
		leave(t, h, c)
		ln.Close()
	}
	if _, err := join(t.Context(), d, "b"); err == nil {
		t.Error("joined nobody")
	}
}

func TestLock(t *testing.T) {
	d := testDir(t)
	if h := d.readHolder(); h != (holder{}) {
		t.Errorf("a new directory has been held by %+v", h)
	}
	lock, err := d.tryLock()
	if lock == nil || err != nil {
		t.Fatal(lock, err)
	}
	want := holder{PID: os.Getpid(), Start: 1, Strays: true, UserNS: 5}
	for range 2 { // the second time it is shorter
		if err := writeHolder(lock, want); err != nil {
			t.Fatal(err)
		}
		if h := d.readHolder(); h != want {
			t.Errorf("got %+v, want %+v", h, want)
		}
		want = holder{PID: 1}
	}
	if other, err := d.tryLock(); other != nil || err != nil {
		t.Errorf("locked twice: %v %v", other, err)
	}
	if got, want := d.waitLine(true, false), "waiting: another version of optbuild uses "+d.Path()+" (process 1)"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	lock.Close()
	again, err := d.tryLock()
	if again == nil || err != nil {
		t.Fatal(again, err)
	}
	again.Close()
}

func TestAwaitEnd(t *testing.T) {
	us := holder{PID: os.Getpid(), Start: startTime(os.Getpid())}
	if err := us.awaitEnd(t.Context(), time.Nanosecond); !errors.Is(err, ErrBusy) {
		t.Errorf("our own end has come: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := us.awaitEnd(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("waits although it was told not to: %v", err)
	}
	for _, h := range []holder{{}, {PID: us.PID, Start: us.Start + 1}} { // nobody; another process of our number
		if err := h.awaitEnd(t.Context(), time.Hour); err != nil {
			t.Errorf("%+v: %v", h, err)
		}
	}
}

// TestAbandoned: an engine that serves does not end because its starter has joined it and let go.
func TestAbandoned(t *testing.T) {
	open, closed := make(chan struct{}), make(chan struct{})
	close(closed)
	if !abandoned(open, closed) {
		t.Error("a starter that is gone was not noticed")
	}
	for range 100 {
		if abandoned(closed, open) || abandoned(closed, closed) {
			t.Fatal("an engine that serves would end")
		}
	}
}
