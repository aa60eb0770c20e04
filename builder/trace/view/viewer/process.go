package viewer

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process keeps a viewer, which it starts when one is needed. Its zero value is ready; its methods may be called concurrently.
//
// The viewer ends with this process, however that ends. The kernel kills it at once (PR_SET_PDEATHSIG) when the *thread* that started it ends, so
// that thread does nothing but wait for it. The end of the connection would not do: a process that was killed keeps its descriptors as long as
// one of its threads waits for a view. For the same reason the end of a pid namespace would not do.
type Process struct {
	name string // that it is started under; tests have one of their own

	mu      sync.Mutex
	current *client // nil: none was started
	cmd     *exec.Cmd
}

// Start starts the viewer, if there is none, without waiting for it.
func (p *Process) Start() {
	go func() { _, _ = p.client() }() // who needs it tries again, and gets the error
}

// Close ends the viewer, and with it the views that are open.
func (p *Process) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.current
	if c == nil {
		return
	}
	p.current = nil
	_ = c.conn.(*net.UnixConn).CloseWrite() // it takes its views down, and ends
	select {
	case <-c.ended:
	case <-time.After(endWait):
		c.conn.Close()
		<-c.ended
	}
}

// endWait bounds how long a viewer may take to end when it was asked to.
const endWait = 5 * time.Second

// client returns the connection to a viewer that runs.
func (p *Process) client() (*client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current != nil {
		select {
		case <-p.current.ended:
		default:
			return p.current, nil
		}
	}
	name := arg0
	if p.name != "" {
		name = p.name
	}
	c, cmd, err := start(name)
	if err != nil {
		return nil, fmt.Errorf("start viewer: %w", err)
	}
	p.current, p.cmd = c, cmd
	return c, nil
}

// start executes this binary as a viewer. It inherits its standard error and a connection, and is in the same namespaces.
func start(name string) (*client, *exec.Cmd, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "viewer"), os.NewFile(uintptr(pair[1]), "viewer")
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{name}
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, exited := make(chan error, 1), make(chan struct{})
	go func() {
		runtime.LockOSThread() // and never let go: see Process
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
		close(exited)
	}()
	if err := <-started; err != nil {
		conn.Close()
		return nil, nil, err
	}
	end := func() error {
		_ = cmd.Process.Kill()
		<-exited
		if cmd.ProcessState == nil { // somebody else waited for it, as an engine does at its end
			return errors.New("it is gone")
		}
		return errors.New(cmd.ProcessState.String())
	}
	return newClient(conn, end), cmd, nil
}

// ignoreEnd drops errors that only say that the other end is closed.
func ignoreEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, unix.ECONNRESET) {
		return nil
	}
	return err
}
