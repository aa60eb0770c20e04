// Package server shows eStargz layers (package tocfs) from a process of its own.
//
//	engine ──fork──> server: this binary under another name
//	   │   Mount(layer, directory)      │
//	   │ <── Fetch(part of a blob) ──── │
//	   │ <── Failed(reason) ─────────── ├── /dev/fuse
//	   └── steps, exports: read         └── what was fetched, in a directory
//
// Why a process: a thread that waits for FUSE can't be killed, and the engine reads the layers that it has mounted. If it served them itself and were killed meanwhile, it would never end
// (builder/trace/view/viewer has the long version). Why the engine fetches: it has the credentials, the server has no need of them.
//
// A server that ends breaks the layers that it showed: who reads them gets errors. The next mount gets a new one.
package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/rpc"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/builder/engine/lazypull/tocfs"
)

// arg0 is the name under which this binary is a server, the others are the descriptors that it gets.
const (
	arg0         = "optbuild-layers"
	requestsFile = 3 // the engine asks
	sourceFile   = 4 // the server asks
)

// See package viewer: a process that is started as a server becomes one here.
func init() {
	if len(os.Args) > 0 && os.Args[0] == arg0 {
		if err := run(); err != nil {
			fmt.Fprintln(os.Stderr, arg0+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// Layer is a layer to be mounted.
type Layer struct {
	ID         string // that Fetch and Failed get
	Digest     digest.Digest
	Bytes      int64
	TOC        digest.Digest
	Mountpoint string // an empty directory
	Cache      string // a directory that exists
}

// Part is a part of a blob.
type Part struct {
	ID        string
	Off, Size int64
}

// Failure says why a file of a layer can't be read.
type Failure struct{ ID, Text string }

// Nothing is what a call without a result returns.
type Nothing struct{}

func run() error {
	debug.SetGCPercent(100) // the engine's environment switches the collector off
	logrus.SetOutput(io.Discard)
	requests, err := inherited(requestsFile)
	if err != nil {
		return err
	}
	source, err := inherited(sourceFile)
	if err != nil {
		return err
	}
	s := &Server{source: rpc.NewClient(source), mounted: map[*tocfs.Mounted]bool{}}
	r := rpc.NewServer()
	if err := r.Register(s); err != nil {
		return err
	}
	r.ServeConn(requests) // until the engine ends
	s.close()
	return nil
}

func inherited(fd uintptr) (net.Conn, error) {
	f := os.NewFile(fd, "connection")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("open connection to the engine: %w", err)
	}
	return c, nil
}

// Server is what the engine asks. Its methods are net/rpc's.
type Server struct {
	source *rpc.Client

	mu      sync.Mutex
	mounted map[*tocfs.Mounted]bool
}

// openWait bounds the time for reading a table of contents.
const openWait = time.Minute

// Mount shows a layer. It returns when it is there.
func (s *Server) Mount(a Layer, names *int) error {
	ctx, cancel := context.WithTimeout(context.Background(), openWait)
	defer cancel()
	l, err := tocfs.Open(ctx, part{s.source, a.ID}, tocfs.Options{
		Digest: a.Digest, Bytes: a.Bytes, TOC: a.TOC, Cache: a.Cache,
		Failed: func(err error) {
			_ = s.source.Call("Source.Failed", Failure{a.ID, err.Error()}, &Nothing{}) // if the engine is gone, nobody cares
		},
	})
	if err != nil {
		return err
	}
	m, err := l.Mount(a.Mountpoint)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	*names = l.Names()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mounted[m] = true
	go func() {
		m.Wait()
		_ = l.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.mounted, m)
	}()
	return nil
}

// Ping answers.
func (s *Server) Ping(Nothing, *Nothing) error { return nil }

func (s *Server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for m := range s.mounted {
		_ = m.Unmount() // the namespace ends, too
	}
}

// part is the engine's end as a source of one blob.
type part struct {
	source *rpc.Client
	id     string
}

func (p part) Fetch(_ context.Context, off, size int64) (io.ReadCloser, error) {
	var b []byte
	if err := p.source.Call("Source.Fetch", Part{p.id, off, size}, &b); err != nil {
		return nil, err
	}
	if int64(len(b)) != size {
		return nil, fmt.Errorf("got %d of %d bytes", len(b), size)
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}
