package process

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Services that a connection to the engine can be for.
const (
	serviceHold     = "hold"     // counts as a user of the engine for as long as it is open
	ServiceBuildKit = "buildkit" // BuildKit's gRPC API
	ServiceStore    = "store"    // the image store's gRPC API
	ServiceKeeper   = "keeper"   // disk usage and pruning, over HTTP
)

// hello is the first line, in JSON, that a command writes on each connection.
type hello struct {
	Service string `json:"service"`
	// Build identifies the binary: engines and commands of different builds do not talk to each other.
	Build string `json:"build"`
}

// welcome is the engine's answer, one line of JSON, on hold connections only.
type welcome struct {
	Build string `json:"build"`
	// PID of the engine in the namespace of its starter.
	PID     int      `json:"pid"`
	Notices []string `json:"notices,omitempty"`
	// Settings are those of the command that started the engine.
	Settings json.RawMessage `json:"settings,omitempty"`
	Kind     Kind            `json:"kind"`
}

// errOtherBuild means that the engine that runs is of another optbuild.
var errOtherBuild = errors.New("the engine that runs is of another version of optbuild")

// Conn is a command's hold on an engine. Close it when the command needs the engine no more. Its methods may be called
// concurrently.
type Conn struct {
	// Notices are lines about how the engine runs that its user should know (such as the single-id mode).
	Notices []string
	// Settings are those of the command that started the engine.
	Settings json.RawMessage
	// PID of the engine's process.
	PID int
	// Kind is how the engine came to be root.
	Kind Kind
	// Started is true when this command started the engine, false when it joined.
	Started bool

	dir   Dir
	build string
	hold  *net.UnixConn
	leave func() error
	pidfd int           // -1 if there is none
	lost  chan struct{} // closed when the engine is about to end, or has
	gone  chan struct{} // closed when the engine has ended, or has let us go after Close
}

// Dial opens a connection to one of the engine's services. It does not connect to an engine that came after ours.
func (c *Conn) Dial(ctx context.Context, service string) (net.Conn, error) {
	select {
	case <-c.lost:
		return nil, c.lostError()
	default:
		return dialService(ctx, c.dir, hello{Service: service, Build: c.build})
	}
}

// Leave gives up the hold and does not wait, so that the engine may end while the command has other things to do. Nothing can be asked of the engine any more;
// Close is still to be called.
func (c *Conn) Leave() { _ = c.leave() }

// Close gives up the hold. When this was the last one it returns after the engine has ended, else at once.
func (c *Conn) Close() error {
	if err := c.leave(); err == nil {
		<-c.gone
	}
	return c.hold.Close()
}

// Lost returns a channel that is closed when the engine ends, or is about to, while the hold is open (and after Close).
func (c *Conn) Lost() <-chan struct{} { return c.lost }

// Watch returns a context that ends when the engine goes away, with a *LostError as its cause.
func (c *Conn) Watch(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-c.lost:
			cancel(c.lostError())
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// LostWithin returns a *LostError if the engine is gone, or goes within the given time, and nil otherwise.
func (c *Conn) LostWithin(d time.Duration) error {
	select {
	case <-c.lost:
		return c.lostError()
	default:
	}
	select {
	case <-c.lost:
		return c.lostError()
	case <-time.After(d):
		return nil
	}
}

func (c *Conn) lostError() error {
	e := &LostError{PID: c.PID, Log: c.dir.Log()}
	if line := lastLine(e.Log); !strings.Contains(line, " level=warning ") {
		e.Tail = line
	}
	return e
}

// LostError says that the engine ended while a command needed it.
type LostError struct {
	PID  int
	Log  string // path of the engine's log
	Tail string // its last line, unless that is a mere warning
}

func (e *LostError) Error() string {
	s := fmt.Sprintf("the engine (process %d) was killed or stopped; its log is %s", e.PID, e.Log)
	if e.Tail != "" {
		s += " and ends with: " + e.Tail
	}
	return s
}

func join(ctx context.Context, d Dir, build string) (*Conn, error) {
	nc, err := dialService(ctx, d, hello{Service: serviceHold, Build: build})
	if err != nil {
		return nil, err
	}
	uc := nc.(*net.UnixConn)
	r := bufio.NewReader(uc)
	stop := context.AfterFunc(ctx, func() { uc.SetReadDeadline(time.Now()) })
	line, err := r.ReadBytes('\n')
	if !stop() || err != nil {
		uc.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("greet engine: %w", err)
	}
	var w welcome
	if err := json.Unmarshal(line, &w); err != nil {
		uc.Close()
		return nil, fmt.Errorf("greet engine: %w", err)
	}
	if w.Build != build {
		uc.Close()
		return nil, errOtherBuild
	}
	c := &Conn{Notices: w.Notices, Settings: w.Settings, PID: w.PID, Kind: w.Kind, dir: d, build: build, hold: uc, leave: sync.OnceValue(uc.CloseWrite), pidfd: peerPidfd(uc), lost: make(chan struct{}), gone: make(chan struct{})}
	go c.listen(r)
	return c, nil
}

// What an engine says on hold connections before it closes them: that it was asked to end, or that its process stays for a while after all of the engine has ended.
const (
	endsEarly = '\n'
	lingers   = '.'
)

// listen waits until the engine closes the hold connection; when that is because it ends, until its process is gone, too:
// files are closed before mounts are dropped, and the user may want to unmount or delete things.
func (c *Conn) listen(r *bufio.Reader) {
	said, _ := r.ReadByte() // an engine that is asked to end by a signal says so before it ends our build
	close(c.lost)
	_, _ = io.Copy(io.Discard, r)
	if c.pidfd >= 0 {
		if _, err := os.Lstat(c.dir.file(socketName)); err != nil && said != lingers {
			pollPidfd(c.pidfd, time.Second)
		}
		unix.Close(c.pidfd)
	}
	close(c.gone)
}

// peerPidfd returns a descriptor of the process at the other end of a connection; -1 when it can't be had, as when that
// process is not visible in our pid namespace.
func peerPidfd(c *net.UnixConn) int {
	fd := -1
	raw, err := c.SyscallConn()
	if err != nil {
		return fd
	}
	_ = raw.Control(func(s uintptr) {
		cred, err := unix.GetsockoptUcred(int(s), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil || cred.Pid <= 0 {
			return
		}
		if p, err := unix.PidfdOpen(int(cred.Pid), 0); err == nil {
			fd = p
		}
	})
	return fd
}

func dialService(ctx context.Context, d Dir, h hello) (net.Conn, error) {
	path, done, err := d.socketPath()
	if err != nil {
		return nil, err
	}
	defer done()
	var nd net.Dialer
	c, err := nd.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	line, err := json.Marshal(h)
	if err == nil {
		_, err = c.Write(append(line, '\n'))
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("greet engine: %w", err)
	}
	return c, nil
}

// maxSocketPath leaves room below the kernel's 108 bytes for a socket address.
const maxSocketPath = 100

// socketPath returns a name for the engine's socket that fits into a socket address: deep state directories are named
// through a file descriptor, which done closes.
func (d Dir) socketPath() (path string, done func(), err error) {
	if path = d.file(socketName); len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	f, err := os.Open(d.path)
	if err != nil {
		return "", nil, err
	}
	return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) + "/" + socketName, func() { f.Close() }, nil
}

// readHello reads a connection's first line byte by byte, so that nothing of what follows it is swallowed.
func readHello(c io.Reader) (h hello, err error) {
	var line strings.Builder
	var b [1]byte
	for line.Len() < 4096 {
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return h, err
		}
		if b[0] == '\n' {
			return h, json.Unmarshal([]byte(line.String()), &h)
		}
		line.WriteByte(b[0])
	}
	return h, errors.New("first line is too long")
}
