package builder

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"

	"github.com/optbuild/optbuild/builder/daemon"
	"github.com/optbuild/optbuild/builder/emulation"
	"github.com/optbuild/optbuild/builder/engine"
	"github.com/optbuild/optbuild/builder/process"
)

// ServeOptions say what Serve serves, and where.
type ServeOptions struct {
	// Root is the state directory; empty means the configuration's, or DefaultRoot.
	Root, DefaultRoot string
	// Config are documents in buildkitd.toml's format; a later one overrides an earlier one.
	Config []string
	// Say is called with lines for the user. May be nil.
	Say func(string)
	// Settings and SingleID are as in Options.
	Settings Settings
	SingleID bool
}

// daemonSettings go to the engine of a Serve. Its files are a pipe that is closed when the engine is to stop serving, and
// the listening sockets.
type daemonSettings struct {
	Config []string `json:"config"`
	// Dir is where relative paths in Config start.
	Dir string `json:"dir"`
}

// Serve starts an engine that stands where a buildkitd stands and returns when ctx ends, after the engine has ended. The
// engine is an ordinary one: builds on the same state directory join it, and it outlives Serve for as long as they need it.
func Serve(ctx context.Context, o ServeOptions) error {
	say := o.Say
	if say == nil {
		say = func(string) {}
	}
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	c, warnings, err := daemon.Load(cwd, o.Config...)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		say(w)
	}
	root := o.Root
	if root == "" {
		root = c.Root
	}
	if root == "" {
		root = o.DefaultRoot
	}
	d, err := process.OpenDir(root)
	if err != nil {
		return err
	}
	listeners, warnings, err := c.Listen()
	if err != nil {
		return err
	}
	for _, w := range warnings {
		say(w)
	}
	stopListening := func() {
		for _, l := range listeners {
			l.Close() // a unix socket's file goes with it
		}
	}
	defer stopListening()

	alive, stop, err := os.Pipe()
	if err != nil {
		return err
	}
	defer stop.Close()
	files := []*os.File{alive}
	for _, l := range listeners {
		f, err := l.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			return fmt.Errorf("hand %s over: %w", l.Addr(), err)
		}
		files = append(files, f)
	}
	o.Settings.Daemon = &daemonSettings{Config: o.Config, Dir: cwd}
	conn, err := process.Connect(ctx, d, process.Options{
		Build: BuildID(), Settings: o.Settings, Say: say, SingleID: o.SingleID, Own: true, Files: files, Log: os.Stderr,
	})
	for _, f := range files {
		f.Close()
	}
	if err != nil {
		return err
	}
	for _, n := range conn.Notices {
		say(n)
	}
	for _, l := range listeners {
		say(fmt.Sprintf("serving on %s://%s, state in %s", l.Addr().Network(), l.Addr(), d.Path()))
	}
	select {
	case <-ctx.Done():
	case <-conn.Lost():
		conn.Close()
		return errors.New("the engine ended by itself; its log is above")
	}
	stopListening()
	stop.Close()
	return conn.Close()
}

// withEmulated adds platforms to those that run without this engine's emulation, which come first: the first one of all is the build platform.
func withEmulated(own, emulated []ocispecs.Platform) []ocispecs.Platform {
	list := slices.Clone(own)
	for _, p := range emulated {
		if !slices.ContainsFunc(own, func(o ocispecs.Platform) bool { return o.OS == p.OS && o.Architecture == p.Architecture }) {
			list = append(list, p)
		}
	}
	return list
}

// serveDaemon makes the engine's side of Serve out of what engineOptions came to. The engine itself is made by start. stopped
// returns when the server has stopped, which it does once Serve or the process was asked to end.
func serveDaemon(ctx context.Context, e *process.Engine, s daemonSettings, o engine.Options,
	start func(engine.Options) (*engine.Engine, error), interceptors ...grpc.UnaryServerInterceptor) (stopped func(), err error) {
	c, _, err := daemon.Load(s.Dir, s.Config...)
	if err != nil {
		return nil, err
	}
	if err := c.SetProcess(); err != nil {
		return nil, err
	}
	if err := c.Apply(&o); err != nil {
		return nil, err
	}
	if len(c.Workers.OCI.Platforms) == 0 { // else the configuration says it
		o.Platforms = withEmulated(o.Platforms, emulation.Platforms())
	}
	credentials, err := c.Credentials()
	if err != nil {
		return nil, err
	}
	var listeners []net.Listener
	for _, f := range e.Files[1:] {
		l, err := net.FileListener(f)
		if err != nil {
			return nil, fmt.Errorf("take over listener: %w", err)
		}
		f.Close()
		listeners = append(listeners, l)
	}
	server, err := c.NewServer(ctx, &o, interceptors, filepath.Join(e.Dir.Path(), "run", "otel-grpc.sock"))
	if err != nil {
		return nil, err
	}
	eng, err := start(o)
	if err != nil {
		return nil, err
	}
	server.Serve(eng, listeners, credentials)
	asked, done := make(chan struct{}), make(chan struct{})
	go func() {
		_, _ = e.Files[0].Read(make([]byte, 1)) // returns when the other end is closed, by Serve or by its death
		close(asked)
	}()
	go func() {
		defer close(done)
		select {
		case <-asked:
		case <-e.Stop:
		}
		server.Stop()
	}()
	return func() { <-done }, nil
}
