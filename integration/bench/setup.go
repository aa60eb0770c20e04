package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/integration/bases"
	"github.com/optbuild/optbuild/integration/wan"
)

// bench is the ground on which both sides run: a registry with a base image, a warm buildkitd, state directories.
type bench struct {
	options
	registry  string // host:port
	aside     string // the same registry at another port, where nothing is counted: for looking at what was pushed
	daemon    *exec.Cmd
	address   string // of buildkitd
	config    string // buildkitd.toml, which both sides read
	undo      []func()
	serial    int
	hub       *hub            // what answers at registry
	pushed    map[string]bool // base images with tools, by name
	images    []bases.Base    // that were pushed before anything was built
	downloads string          // address of the proxy for packages, once it runs
	running   []namedPeer     // builders of the matrix that can be measured; nil: nobody has looked yet
	last      string          // the workload of the last cell
	warm      map[string]int  // sides whose last build was of that workload, and whose image of it is in the registry, with the project's serial number then: see inTurn
	link      *wan.Link       // over which projects are served what they download; nil: directly
}

func setUp(ctx context.Context, o options) (_ *bench, err error) {
	b := &bench{options: o, hub: newHub(), pushed: map[string]bool{}, warm: map[string]int{}}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.Floor, err = filepath.Abs(b.Floor); err != nil {
		return nil, err
	}
	for _, p := range []*string{&b.Optbuild, &b.Stock, &b.Runc, &b.App} {
		if *p, err = filepath.Abs(*p); err != nil {
			return nil, err
		}
		if _, err := os.Stat(*p); err != nil {
			return nil, err
		}
	}
	parent := b.Dir
	if parent == "" {
		parent = "/var/tmp"
	}
	if b.Dir, err = os.MkdirTemp(parent, "optbuild-bench-"); err != nil {
		return nil, err
	}
	b.undo = append(b.undo, func() {
		os.RemoveAll(b.Dir)
		unix.Sync() // see discard: the next bench has to wait for a minute, not for five
	})
	if unmount, err := mountVolume(b.Dir); err != nil {
		fmt.Fprintf(os.Stderr, "no file system of the bench's own (%v): what is deleted elsewhere on that of %s counts, too\n", err, b.Dir)
	} else {
		b.undo = append(b.undo, func() {
			if err := unmount(); err != nil {
				fmt.Fprintf(os.Stderr, "unmount the bench's file system: %v\n", err)
			}
		})
	}
	if err := os.Chmod(b.Dir, 0o711); err != nil {
		return nil, err
	}
	if err := b.startRegistry(ctx); err != nil {
		return nil, err
	}
	// Both sides take their copy of the binary from the same place, which every user may read.
	if b.Optbuild, err = install(b.Optbuild, filepath.Join(b.Dir, "bin", "optbuild")); err != nil {
		return nil, err
	}
	b.undo = append(b.undo, b.stopDaemon)
	return b, b.startDaemon(ctx)
}

func (b *bench) stopDaemon() {
	if b.daemon == nil || b.daemon.Process == nil {
		return
	}
	_ = b.daemon.Process.Signal(os.Interrupt)
	_ = b.daemon.Wait()
	b.daemon = nil
}

// emptyDaemon gives buildkitd a new, empty root. `buildctl prune --all` would not do: it keeps base images that were used a
// moment ago.
func (b *bench) emptyDaemon(ctx context.Context) error {
	b.stopDaemon()
	clear(b.warm)
	if err := b.discard(ctx, b.stockRoot()); err != nil {
		return err
	}
	return b.startDaemon(ctx)
}

func (b *bench) stockRoot() string { return filepath.Join(b.Dir, "stock") }

func (b *bench) startRegistry(ctx context.Context) error {
	for _, s := range []struct {
		address *string
		handler http.Handler
	}{{&b.registry, b.hub}, {&b.aside, b.hub.uncounted()}} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		srv := &http.Server{Handler: s.handler}
		go srv.Serve(ln)
		b.undo = append(b.undo, func() { srv.Close() })
		*s.address = ln.Addr().String()
	}
	cache, err := bases.CacheDir()
	if err != nil {
		return err
	}
	for _, base := range []func(context.Context, string) (bases.Base, error){bases.Busybox, bases.Debian} {
		image, err := base(ctx, cache)
		if err != nil {
			return err
		}
		if err := b.offer(ctx, image); err != nil {
			return err
		}
		if image.Name == "debian" {
			if image, err = b.official(image, "library/debian:12"); err != nil { // see mirror
				return err
			}
			if err := b.offer(ctx, image); err != nil {
				return err
			}
		}
	}
	return b.mirror()
}

// mirror makes the registry stand in for Docker Hub, for both sides: of official images optbuild knows more than of others, and so does who
// writes a Dockerfile by hand.
func (b *bench) mirror() error {
	b.config = filepath.Join(b.Dir, "config", "buildkit", "buildkitd.toml")
	if err := os.MkdirAll(filepath.Dir(b.config), 0o755); err != nil {
		return err
	}
	text := fmt.Sprintf("[registry.\"docker.io\"]\n  mirrors = [%[1]q]\n[registry.%[1]q]\n  http = true\n", b.registry)
	return os.WriteFile(b.config, []byte(text), 0o644)
}

func (b *bench) startDaemon(ctx context.Context) error {
	if _, err := install(b.Runc, filepath.Join(b.Dir, "path", "runc")); err != nil {
		return err
	}
	b.address = "unix://" + filepath.Join(b.Dir, "buildkitd.sock")
	b.daemon = exec.Command(filepath.Join(b.Stock, "buildkitd"), "--oci-worker=true", "--containerd-worker=false",
		"--oci-worker-net=host", "--config", b.config, "--root", b.stockRoot(), "--addr", b.address)
	b.daemon.Env = b.stockEnvironment()
	logFile, err := os.Create(filepath.Join(b.Dir, "buildkitd.log"))
	if err != nil {
		return err
	}
	defer logFile.Close()
	b.daemon.Stderr = logFile
	if err := b.daemon.Start(); err != nil {
		return err
	}
	deadline := time.Now().Add(30 * time.Second)
	for b.buildctl("debug", "workers").Run() != nil {
		if time.Now().After(deadline) {
			return errors.New("buildkitd does not answer; its log is " + logFile.Name())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond): // there is no signal to wait for
		}
	}
	return nil
}

// stockEnvironment has optbuild's runc as the first one.
func (b *bench) stockEnvironment() []string {
	return append(os.Environ(), "PATH="+filepath.Join(b.Dir, "path")+":"+os.Getenv("PATH"))
}

func (b *bench) buildctl(args ...string) *exec.Cmd {
	return exec.Command(filepath.Join(b.Stock, "buildctl"), append([]string{"--addr", b.address}, args...)...)
}

// optbuildAs returns the command on a state directory, run as root or as the unprivileged user.
func (b *bench) optbuildAs(user, root string, args ...string) *exec.Cmd {
	args = append([]string{"--root", root}, args...)
	if user == "" {
		c := exec.Command(b.Optbuild, args...)
		c.Env = append(os.Environ(), "XDG_CONFIG_HOME="+filepath.Dir(filepath.Dir(b.config)))
		return c
	}
	c := exec.Command("setpriv", append([]string{"--reuid", user, "--regid", user, "--init-groups", "--reset-env", b.Optbuild}, args...)...)
	c.Dir = "/"
	return c
}

// next returns a name that was not used before.
func (b *bench) next(prefix string) string {
	b.serial++
	return prefix + strconv.Itoa(b.serial)
}

func (b *bench) close() {
	for i := len(b.undo) - 1; i >= 0; i-- {
		b.undo[i]()
	}
}

func install(from, to string) (string, error) {
	data, err := os.ReadFile(from)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return "", err
	}
	return to, os.WriteFile(to, data, 0o755)
}

// execute runs a command and turns its failure into an error with its output.
func execute(c *exec.Cmd) error {
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(c.Path), err, out)
	}
	return nil
}
