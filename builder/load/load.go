// Package load hands a finished image to another engine on this machine: Docker, Podman or containerd.
//
// What comes in is an archive as BuildKit's docker exporter writes it (docker's manifest.json and an OCI layout in one tar);
// what goes out is that the engine has the image, or its error. [Find] chooses the engine as its own clients would:
//
//	DOCKER_HOST                          named by the user: that one or none
//	docker's context                     DOCKER_CONTEXT, or currentContext in config.json
//	docker.sock                          root's, then the user's
//	podman.sock, or CONTAINER_HOST       the user's, then root's; it speaks Docker's API
//	containerd.sock, CONTAINERD_ADDRESS  in CONTAINERD_NAMESPACE or "default"
//
// An engine gets the image whole or not at all: an archive that was cut short is not ended but broken off.
package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Options say where to look.
type Options struct {
	// Getenv reads the user's environment; nil is os.Getenv.
	Getenv func(string) string
	// DockerConfig is the directory of docker's configuration, with its contexts; "" for none.
	DockerConfig string
	// CurrentContext is the context that docker's configuration names; "" for none.
	CurrentContext string
	// Root is put in front of the sockets' paths; "" is the machine's root directory.
	Root string
}

// Engine is an engine that answers.
type Engine struct {
	// Kind is "Docker", "Podman" or "containerd", Address how it is reached.
	Kind, Address string

	load func(context.Context, io.Reader) error
}

func (e *Engine) String() string { return e.Kind + " at " + e.Address }

// ErrNoEngine is wrapped by Find's error when no engine was found.
var ErrNoEngine = errors.New("no Docker, Podman or containerd engine is running here")

// probeTime bounds how long an engine may take to say that it is there.
const probeTime = 10 * time.Second

// Find returns the engine to load images into.
func Find(ctx context.Context, o Options) (*Engine, error) {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	chosen, err := o.chosen()
	if err != nil {
		return nil, err
	}
	if chosen != nil {
		e, err := chosen.connect(ctx)
		if err != nil {
			return nil, fmt.Errorf("connect to Docker at %s (%s): %w", chosen.address, chosen.why, err)
		}
		return e, nil
	}
	var tried []string
	for _, p := range o.places() {
		e, err := p.connect(ctx)
		if err == nil {
			return e, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		tried = append(tried, fmt.Sprintf("%s (%s)", strings.TrimPrefix(p.address, "unix://"), plain(err)))
	}
	return nil, fmt.Errorf("%w; looked for %s", ErrNoEngine, strings.Join(tried, ", "))
}

// plain is the system's word for why a socket can't be used, or the whole error.
func plain(err error) string {
	var no syscall.Errno
	if errors.As(err, &no) {
		return no.Error()
	}
	return err.Error()
}

// place is where an engine may be.
type place struct {
	kind    string
	address string
	why     string // the place was chosen
	connect func(context.Context) (*Engine, error)
}

func (o Options) docker(kind, address, why string, t tlsFiles) *place {
	return &place{kind: kind, address: address, why: why, connect: func(ctx context.Context) (*Engine, error) {
		return connectDocker(ctx, kind, address, t)
	}}
}

// chosen is the place that the user has named for docker's own command line; nil if there is none.
func (o Options) chosen() (*place, error) {
	if host := o.Getenv("DOCKER_HOST"); host != "" {
		return o.docker("Docker", host, "DOCKER_HOST", o.tlsFromEnv()), nil
	}
	name, why := o.Getenv("DOCKER_CONTEXT"), "DOCKER_CONTEXT"
	if name == "" {
		name, why = o.CurrentContext, "currentContext in docker's config.json"
	}
	if name == "" || name == "default" {
		return nil, nil
	}
	c, err := readContext(o.DockerConfig, name)
	if err != nil {
		return nil, fmt.Errorf("read docker's context %s (%s): %w", name, why, err)
	}
	return o.docker("Docker", c.host, "docker's context "+name, c.tls), nil
}

// places lists where engines usually are.
func (o Options) places() []*place {
	unix := func(elem ...string) string {
		return "unix://" + filepath.Join(append([]string{o.Root, "/"}, elem...)...)
	}
	all := []*place{o.docker("Docker", unix("var/run/docker.sock"), "", tlsFiles{})}
	runtime := o.Getenv("XDG_RUNTIME_DIR")
	if runtime != "" {
		all = append(all, o.docker("Docker", "unix://"+filepath.Join(runtime, "docker.sock"), "", tlsFiles{}))
	}
	if host := o.Getenv("CONTAINER_HOST"); host != "" {
		all = append(all, o.docker("Podman", host, "CONTAINER_HOST", tlsFiles{}))
	}
	if runtime != "" {
		all = append(all, o.docker("Podman", "unix://"+filepath.Join(runtime, "podman", "podman.sock"), "", tlsFiles{}))
	}
	all = append(all, o.docker("Podman", unix("run/podman/podman.sock"), "", tlsFiles{}))
	address := o.Getenv("CONTAINERD_ADDRESS")
	if address == "" {
		address = unix("run/containerd/containerd.sock")
	} else if !strings.Contains(address, "://") {
		address = "unix://" + address
	}
	namespace := o.Getenv("CONTAINERD_NAMESPACE")
	if namespace == "" {
		namespace = "default"
	}
	return append(all, &place{kind: "containerd", address: address, connect: func(ctx context.Context) (*Engine, error) {
		return connectContainerd(ctx, address, namespace)
	}})
}

// dialUnix tells whether somebody listens on a socket.
func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", path)
}

// Open starts loading. What is written must be an uncompressed archive; Close returns when the engine has the image, or
// with the engine's error. When ctx ends, nothing is loaded.
func (e *Engine) Open(ctx context.Context) io.WriteCloser {
	r, w := io.Pipe()
	s := &stream{ctx: ctx, engine: e, pipe: w, done: make(chan error, 1)}
	go func() {
		err := e.load(ctx, r)
		if err == nil { // an engine need not read what follows the archive's end
			_, err = io.Copy(io.Discard, r)
		}
		r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
		s.done <- err
	}()
	return s
}

// stream is an archive on its way to an engine.
type stream struct {
	ctx    context.Context // ends the load; a stream has no other way to learn that its writer was cancelled
	engine *Engine
	pipe   *io.PipeWriter
	zeros  int // at the end of what was written
	done   chan error
	closed bool
	err    error
}

// tarEnd is how many zero bytes end an archive (POSIX).
const tarEnd = 1024

func (s *stream) Write(b []byte) (int, error) {
	if rest := bytes.TrimRight(b, "\x00"); len(rest) > 0 {
		s.zeros = 0
		s.zeros += len(b) - len(rest)
	} else {
		s.zeros += len(b)
	}
	n, err := s.pipe.Write(b)
	if err != nil && errors.Is(err, io.ErrClosedPipe) {
		return n, s.finish(nil) // the engine's own error
	}
	return n, err
}

func (s *stream) Close() error {
	switch {
	case s.ctx.Err() != nil:
		return s.finish(context.Cause(s.ctx))
	case s.zeros < tarEnd:
		return s.finish(io.ErrUnexpectedEOF)
	}
	return s.finish(nil)
}

// finish ends the archive, with an error if it is not whole, and waits for the engine.
func (s *stream) finish(cut error) error {
	if s.closed {
		return s.err
	}
	s.closed = true
	s.pipe.CloseWithError(cut) // nil is the archive's proper end
	if err := <-s.done; err != nil {
		s.err = fmt.Errorf("load into %s: %w", s.engine, err)
	}
	return s.err
}
