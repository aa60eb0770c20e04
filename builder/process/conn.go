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
)

// Services that a connection to the engine can be for.
const (
	serviceHold     = "hold"     // counts as a user of the engine for as long as it is open
	ServiceBuildKit = "buildkit" // BuildKit's gRPC API
	ServiceStore    = "store"    // the image store's gRPC API
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
}

// errOtherBuild means that the engine that runs is of another optbuild.
var errOtherBuild = errors.New("the engine that runs is of another version of optbuild")

// Conn is a command's hold on an engine. Close it when the command needs the engine no more.
type Conn struct {
	// Notices are lines about how the engine runs that its user should know (such as the single-id mode).
	Notices []string
	// Settings are those of the command that started the engine.
	Settings json.RawMessage
	// PID of the engine's process.
	PID int
	// Started is true when this command started the engine, false when it joined.
	Started bool

	dir   Dir
	build string
	hold  *net.UnixConn
	rest  *bufio.Reader
	watch sync.Once
	lost  chan struct{}
}

// Dial opens a connection to one of the engine's services.
func (c *Conn) Dial(ctx context.Context, service string) (net.Conn, error) {
	return dialService(ctx, c.dir, hello{Service: service, Build: c.build})
}

// Close gives up the hold. When this was the last one it returns after the engine has ended, else at once.
func (c *Conn) Close() error {
	defer c.hold.Close()
	if err := c.hold.CloseWrite(); err != nil {
		return nil // the engine is gone
	}
	<-c.Lost()
	return nil
}

// Lost returns a channel that is closed when the engine has gone away while the hold was open.
func (c *Conn) Lost() <-chan struct{} {
	c.watch.Do(func() {
		c.lost = make(chan struct{})
		go func() {
			defer close(c.lost)
			_, _ = io.Copy(io.Discard, c.rest)
		}()
	})
	return c.lost
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
	return &Conn{Notices: w.Notices, Settings: w.Settings, PID: w.PID, dir: d, build: build, hold: uc, rest: r}, nil
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
func readHello(c net.Conn) (h hello, err error) {
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
