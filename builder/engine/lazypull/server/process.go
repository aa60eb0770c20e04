package server

import (
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Source is the engine's end: it fetches parts of blobs, and is told what can't be read. Its methods may be called concurrently.
type Source interface {
	Fetch(id string, off, size int64) ([]byte, error)
	Failed(id, reason string)
}

// Process keeps a server, which it starts when one is needed. Its methods may be called concurrently.
type Process struct {
	Source Source
	// Ended is called when the server has ended, whatever the reason. All its mounts are broken then.
	Ended func(error)

	mu     sync.Mutex
	client *rpc.Client // nil: there is none
	ended  chan struct{}
	lost   error // while Ended is called
}

// Mount shows a layer at its mount point, and returns how many names it has.
func (p *Process) Mount(l Layer) (names int, err error) {
	c, err := p.running()
	if err != nil {
		return 0, fmt.Errorf("start the process that shows layers: %w", err)
	}
	return names, c.Call("Server.Mount", l, &names)
}

// Lost says why the server that is thought to run can't be asked; nil if it can, or if there is none. When it ends, its connection does so before its mounts.
func (p *Process) Lost() error {
	p.mu.Lock()
	c, lost := p.client, p.lost
	p.mu.Unlock()
	if c == nil {
		return lost
	}
	if err := c.Call("Server.Ping", Nothing{}, &Nothing{}); err != nil {
		return fmt.Errorf("the process that shows them: %w", err)
	}
	return nil
}

// Close ends the server, and with it what it shows.
func (p *Process) Close() {
	p.mu.Lock()
	c, ended := p.client, p.ended
	p.client = nil
	p.mu.Unlock()
	if c != nil {
		c.Close()
		<-ended
	}
}

func (p *Process) running() (*rpc.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client != nil {
		return p.client, nil
	}
	ours, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	source, theirSource, err := pair()
	if err != nil {
		ours.Close()
		return nil, err
	}
	defer theirSource.Close()
	r := rpc.NewServer()
	if err := r.RegisterName("Source", &service{p.Source}); err != nil {
		ours.Close()
		source.Close()
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{arg0}
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{theirs, theirSource}
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	// The kernel kills it when the thread that started it ends: that thread does nothing but wait for it. The end of the connection would not do, see viewer.Process.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error, 1), make(chan struct{})
	client := rpc.NewClient(ours)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		err = cmd.Wait()
		source.Close()
		client.Close()
		p.mu.Lock()
		closed := p.client != client
		if !closed {
			if err == nil {
				err = errors.New("it has ended")
			}
			p.client, p.lost = nil, err
		}
		p.mu.Unlock()
		if !closed {
			p.Ended(err)
			p.mu.Lock()
			p.lost = nil
			p.mu.Unlock()
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		client.Close()
		source.Close()
		return nil, err
	}
	go r.ServeConn(source)
	p.client, p.ended = client, ended
	return client, nil
}

func pair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "layers"), os.NewFile(uintptr(fds[1]), "layers")
	c, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return c, theirs, nil
}

// service is a Source as net/rpc wants it.
type service struct{ s Source }

// Fetch is Source's.
func (s *service) Fetch(p Part, b *[]byte) (err error) {
	*b, err = s.s.Fetch(p.ID, p.Off, p.Size)
	return err
}

// Failed is Source's.
func (s *service) Failed(f Failure, _ *Nothing) error {
	s.s.Failed(f.ID, f.Text)
	return nil
}
