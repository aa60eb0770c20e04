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

	notices   []string
	listeners map[string]*listener
}

// Notice adds a line that is shown to the user of each command. Only before Serve's function returns.
func (e *Engine) Notice(line string) { e.notices = append(e.notices, line) }

// Listener returns the listener for one of the services. Only before Serve's function returns.
func (e *Engine) Listener(service string) net.Listener {
	l, ok := e.listeners[service]
	if !ok {
		l = newListener(service)
		e.listeners[service] = l
	}
	return l
}

// Served is what a started engine hands back: Idle is called when the last hold is gone, before the process ends. It must
// end by itself in bounded time; the process ends without it after [IdleLimit].
type Served struct {
	Idle func(ctx context.Context)
	// After is called when all of that has ended. If it returns a function, the process lets go of the directory and of everybody who waits for it, and ends when that function returns, or
	// when IdleLimit has passed. May be nil.
	After func() (wait func())
}

// IdleLimit bounds the time between an engine's last hold and its end.
const IdleLimit = 60 * time.Second

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

func runEngine(serve Serve) error {
	for _, fd := range []int{lockFD, paramFD, readyFD} {
		unix.CloseOnExec(fd)
	}
	readyPipe := os.NewFile(readyFD, "ready")
	paramPipe := os.NewFile(paramFD, "params")
	fail := func(r ready, err error) error {
		r.Error = err.Error()
		var coded interface{ Code() string }
		if errors.As(err, &coded) {
			r.Code = coded.Code()
		}
		_ = errors.As(err, &r.Errno)
		var oe *opError
		if errors.As(err, &oe) {
			r.Op = oe.op
		}
		_ = json.NewEncoder(readyPipe).Encode(r)
		return err
	}
	var p params
	dec := json.NewDecoder(paramPipe)
	if err := dec.Decode(&p); err != nil {
		return fmt.Errorf("read parameters: %w", err)
	}
	starterGone := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, paramPipe) // the starter closes its end when it has joined, or dies
		close(starterGone)
	}()
	StartWithoutGC()
	files := make([]*os.File, p.Files)
	for i := range files {
		unix.CloseOnExec(filesFD + i)
		files[i] = os.NewFile(uintptr(filesFD+i), fmt.Sprintf("starter's file %d", i))
	}
	unix.Umask(0) // BuildKit's COPY --chmod and fsutil count on it

	d := Dir{path: p.Dir}.in(p.Shape)
	if err := d.enterNamespaces(p.Shape); err != nil {
		return fail(ready{MaskedProc: errors.Is(err, errMaskedProc)}, err)
	}
	last, err := d.readMarker()
	neverUsed := errors.Is(err, os.ErrNotExist)
	d.sweep(p.Shape, err == nil && !last.Running)
	notices, err := d.checkMarker(machineClock())
	if err == nil {
		err = os.MkdirAll(d.Cache(), 0o700)
	}
	if err != nil {
		return fail(ready{}, err)
	}
	if neverUsed {
		go d.syncMarker() // while there is little else to write
	} else {
		time.AfterFunc(syncDelay, d.syncMarker)
	}

	// Setsid took us out of the terminal, so that Ctrl-C reaches the command only. SIGTERM is for us. The rest is caught and
	// dropped rather than ignored: ignored signals would stay ignored in the steps of the build.
	ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer cancel()
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGPIPE)
	if os.Getpid() == 1 {
		go reapOrphans(ctx)
	}

	e := &Engine{
		Dir: d, Shape: p.Shape, Settings: p.Settings, Files: files, Stop: ctx.Done(),
		notices: append(p.Notices, notices...), listeners: map[string]*listener{},
	}
	served, err := serveUnless(ctx, starterGone, serve, e)
	if err != nil {
		return fail(ready{}, err)
	}
	ln, err := d.listen()
	if err != nil {
		return fail(ready{}, err)
	}
	h := newHouse(welcome{Build: p.Build, PID: p.PID, Notices: e.notices, Settings: p.Settings, Kind: p.Shape.Kind}, e.listeners)
	go h.accept(ln)
	_ = json.NewEncoder(readyPipe).Encode(ready{})
	readyPipe.Close()
	go d.emptyTrash()
	go func() {
		<-starterGone
		h.abandon()
	}()

	select {
	case <-h.idle:
	case <-ctx.Done():
		h.stop()
	}
	d.end(p, ln, served)
	if served.After == nil {
		return nil
	}
	if wait := served.After(); wait != nil {
		unix.Close(lockFD) // who comes now may start an engine
		h.release()
		wait()
	}
	return nil
}

// serveUnless calls serve; when the starter dies meanwhile nobody waits for the outcome, and the process ends.
func serveUnless(ctx context.Context, starterGone <-chan struct{}, serve Serve, e *Engine) (Served, error) {
	done := make(chan struct{})
	defer close(done)
	go func() {
		if abandoned(done, starterGone) {
			fmt.Fprintln(os.Stderr, "optbuild-engine: the command that started the engine is gone")
			os.Exit(1)
		}
	}()
	return serve(ctx, e)
}

// abandoned reports whether the starter went before the engine served. A starter also goes, or lets go, soon after that: on a
// busy machine both may have happened by the time that this goroutine first runs.
func abandoned(served, starterGone <-chan struct{}) bool {
	select {
	case <-served:
	case <-starterGone:
	}
	select {
	case <-served:
		return false
	default:
		return true
	}
}

// end is what an engine does last. From here on nobody can join: who tries finds no socket, waits for the lock, and starts an
// engine of its own.
func (d Dir) end(p params, ln net.Listener, served Served) {
	time.AfterFunc(IdleLimit, func() { os.Exit(1) })
	os.Remove(d.file(socketName))
	ln.Close()
	if served.Idle != nil {
		ctx, cancel := context.WithTimeout(context.Background(), IdleLimit-5*time.Second)
		served.Idle(ctx)
		cancel()
	}
	if os.Getpid() == 1 {
		killRest(5 * time.Second)
	} else {
		d.killStrays(0)
	}
	if p.Shape.Kind == HostRoot {
		d.removeCgroups()
	}
	d.markEnd(p.Sync)
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
