package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Engine is what an engine's process is given to serve with.
type Engine struct {
	Dir      Dir
	Shape    Shape
	Settings json.RawMessage
	// Stop is closed when the process is asked to end by a signal.
	Stop <-chan struct{}
	// Files are the starter's Options.Files.
	Files []*os.File
	// Fresh is true when the cache has to be made anew or was thrown away.
	Fresh bool

	notices   []string
	listeners map[string]*listener
}

// Notice adds a line that is shown to the user of each command. Only before Serve's function returns.
func (e *Engine) Notice(line string) { e.notices = append(e.notices, line) }

// Listener returns the listener for one of the services.
func (e *Engine) Listener(service string) net.Listener {
	l, ok := e.listeners[service]
	if !ok {
		l = newListener(service)
		e.listeners[service] = l
	}
	return l
}

// Served is what a started engine hands back: Idle is called when the last hold is gone, before the process ends. It must
// end by itself in bounded time.
type Served struct {
	Idle func(ctx context.Context)
}

// Serve starts the engine's services on its listeners and returns; it is called once in the engine's process.
type Serve func(ctx context.Context, e *Engine) (Served, error)

// IsChild reports whether this process was started by Connect as an engine, or as the step before it.
func IsChild() bool {
	return len(os.Args) > 0 && (os.Args[0] == engineArg0 || os.Args[0] == mappingArg0)
}

// RunChild is the main function of a child; it does not return.
func RunChild(serve Serve) {
	if os.Args[0] == mappingArg0 {
		awaitMapping()
	}
	if err := runEngine(serve); err != nil {
		fmt.Fprintln(os.Stderr, "optbuild-engine:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// awaitMapping waits until the starter has filled our user namespace, then executes the binary again: capabilities were
// lost at the first exec, because our id was not mapped yet.
func awaitMapping() {
	var b [1]byte
	if n, err := unix.Read(paramFD, b[:]); n != 1 || err != nil {
		os.Exit(1) // the starter gave up
	}
	err := unix.Exec("/proc/self/exe", []string{engineArg0}, os.Environ())
	fmt.Fprintln(os.Stderr, "optbuild-engine: exec:", err)
	os.Exit(1)
}

// startPhase is longer than a build takes in which everything is cached.
const startPhase = 500 * time.Millisecond

func runEngine(serve Serve) error {
	unix.CloseOnExec(lockFD)
	readyPipe := os.NewFile(readyFD, "ready")
	paramPipe := os.NewFile(paramFD, "params")
	unix.CloseOnExec(readyFD)
	answer := func(r ready) {
		_ = json.NewEncoder(readyPipe).Encode(r)
		readyPipe.Close()
	}
	var p params
	if err := json.NewDecoder(paramPipe).Decode(&p); err != nil {
		return fmt.Errorf("read parameters: %w", err)
	}
	paramPipe.Close()
	time.AfterFunc(startPhase, func() { debug.SetGCPercent(100) })
	files := make([]*os.File, p.Files)
	for i := range files {
		unix.CloseOnExec(filesFD + i)
		files[i] = os.NewFile(uintptr(filesFD+i), fmt.Sprintf("starter's file %d", i))
	}
	unix.Umask(0) // BuildKit's COPY --chmod and fsutil count on it

	d := Dir{p.Dir}
	if err := d.enterNamespaces(p.Shape); err != nil {
		if errors.Is(err, errMaskedProc) {
			answer(ready{MaskedProc: true})
			return nil
		}
		answer(ready{Error: err.Error()})
		return err
	}
	d.sweep(p.Shape)
	fresh, notices, err := d.checkMarker(p.PID)
	if err != nil {
		answer(ready{Error: err.Error()})
		return err
	}

	// Ctrl-C reaches the starter only: Setsid took us out of its terminal. SIGTERM is for us.
	ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer cancel()
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGPIPE)
	if os.Getpid() == 1 {
		go reapOrphans(ctx)
	}

	e := &Engine{
		Dir: d, Shape: p.Shape, Settings: p.Settings, Files: files, Stop: ctx.Done(), Fresh: fresh,
		notices: append(p.Notices, notices...), listeners: map[string]*listener{},
	}
	ln, err := d.listen()
	if err != nil {
		answer(ready{Error: err.Error()})
		return err
	}
	served, err := serve(ctx, e)
	if err != nil {
		r := ready{Error: err.Error()}
		var coded interface{ Code() string }
		if errors.As(err, &coded) {
			r.Code = coded.Code()
		}
		answer(r)
		return err
	}
	h := &house{engine: e, build: p.Build, pid: p.PID, idle: make(chan struct{})}
	go h.accept(ln)
	answer(ready{})

	select {
	case <-h.idle:
	case <-ctx.Done():
	case <-h.orphaned():
	}
	// From here on nobody can join: who tries finds no socket, waits for the lock, and starts an engine of its own.
	os.Remove(d.file(socketName))
	ln.Close()
	if served.Idle != nil {
		served.Idle(context.WithoutCancel(ctx))
	}
	d.markEnd()
	return nil
}

func (d Dir) listen() (net.Listener, error) {
	if err := os.Remove(d.file(socketName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	path, done, err := d.socketPath()
	if err != nil {
		return nil, err
	}
	defer done()
	old := unix.Umask(0o177)
	ln, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, err
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	return ln, nil
}

// house keeps count of the holds.
type house struct {
	engine *Engine
	build  string
	pid    int
	idle   chan struct{} // closed when the last hold is gone

	mu    sync.Mutex
	holds int
	first chan struct{} // closed with the first hold
	ended bool
}

// startGrace is how long an engine waits for its first hold: its starter may have been killed meanwhile.
const startGrace = 10 * time.Second

func (h *house) orphaned() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.first == nil {
		h.first = make(chan struct{})
	}
	ch := make(chan struct{})
	first := h.first
	go func() {
		select {
		case <-first:
		case <-time.After(startGrace):
			close(ch)
		}
	}()
	return ch
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
	_ = c.SetReadDeadline(time.Now().Add(startGrace))
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
	if l, ok := h.engine.listeners[hi.Service]; ok && hi.Build == h.build {
		l.give(c)
		return
	}
	c.Close()
}

func (h *house) hold(c net.Conn, hi hello) {
	defer c.Close()
	line, err := json.Marshal(welcome{Build: h.build, PID: h.pid, Notices: h.engine.notices, Settings: h.engine.Settings})
	if err != nil {
		return
	}
	counts := hi.Build == h.build // who is of another build is told so, and waits for our end
	if counts && !h.enter() {
		return
	}
	if _, err := c.Write(append(line, '\n')); err == nil {
		_, _ = io.Copy(io.Discard, c)
	}
	if counts && h.leave() {
		close(h.idle)
		select {} // the connection stays open until the process has ended: its other end waits for that
	}
}

func (h *house) enter() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return false
	}
	if h.holds++; h.first == nil {
		h.first = make(chan struct{})
	}
	select {
	case <-h.first:
	default:
		close(h.first)
	}
	return true
}

// leave reports whether that was the last hold.
func (h *house) leave() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.holds--
	h.ended = h.holds == 0
	return h.ended
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

// reapOrphans collects the exit status of processes that were re-parented to us as init. Our own children have a waiter
// that is faster than two looks at the same zombie.
func reapOrphans(ctx context.Context) {
	seen := map[int]bool{}
	t := time.NewTicker(2 * time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		now := map[int]bool{}
		for _, pid := range zombies() {
			if seen[pid] {
				_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
			} else {
				now[pid] = true
			}
		}
		seen = now
	}
}

func zombies() (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		if pid, ppid, state, err := parseStat(string(b)); err == nil && ppid == os.Getpid() && state == 'Z' {
			pids = append(pids, pid)
		}
	}
	return pids
}

// parseStat reads the first fields of /proc/<pid>/stat; the second, the command's name, may hold spaces and brackets.
func parseStat(s string) (pid, ppid int, state byte, err error) {
	open, end := -1, -1
	for i := range len(s) {
		if s[i] == '(' && open < 0 {
			open = i
		}
		if s[i] == ')' {
			end = i
		}
	}
	if open < 0 || end < open || end+4 > len(s) {
		return 0, 0, 0, syscall.EINVAL
	}
	if _, err = fmt.Sscan(s[:open], &pid); err != nil {
		return 0, 0, 0, err
	}
	state = s[end+2]
	_, err = fmt.Sscan(s[end+3:], &ppid)
	return pid, ppid, state, err
}
