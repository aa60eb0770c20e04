// Package startup starts the program of an image in the engine's sandbox, and returns what it read until it was ready.
//
// What comes in is a result of BuildKit's solver that holds the image's files, and what to start ([Program]); what goes out is the list of files, from the engine's package
// profiler, which watches. This side decides when it is enough ([Options]), and then has the program end. Nothing that it did is kept.
//
// The package knows nothing of command lines, image stores or registries.
package startup

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"

	"github.com/optbuild/optbuild/builder/profile"
)

// Options say when a program has started.
type Options struct {
	// Time is how long the program is watched, or how long a condition may take. Zero: [DefaultTime], or [DefaultPatience].
	Time time.Duration
	// Conditions are one that the engine looks for; at most one of these and Log.
	Conditions profile.Conditions
	// Log matches a line of the program's output.
	Log *regexp.Regexp
	// Grace is how long the program may take to end after it was asked to. Zero: [DefaultGrace].
	Grace time.Duration
	// Network is the program's: pb.NetMode_UNSET is that of RUN steps.
	Network pb.NetMode
	// Output receives what the program prints. May be nil.
	Output io.Writer
	// Say is told what happens, in lines for people. May be nil.
	Say func(string)
}

// What holds unless Options say otherwise.
const (
	DefaultTime     = 10 * time.Second
	DefaultPatience = 2 * time.Minute
	DefaultGrace    = 2 * time.Second // nothing that it still does is kept
)

// Started is what was seen.
type Started struct {
	Until  string // as in a profile
	Layers int    // how many the files are in
	Files  []profile.File
}

// ErrRefused is wrapped by the error about a condition that can't be looked for.
var ErrRefused = errors.New("wait for the program to be ready")

// Failure is a program that did not start as it was wanted to. Log is the end of what it printed.
type Failure struct {
	Message string
	Log     []string
}

func (f *Failure) Error() string { return f.Message }

// Watch runs a program on the files of ref until it has started.
func Watch(ctx context.Context, c gwclient.Client, ref gwclient.Reference, p Program, o Options) (_ *Started, err error) {
	o.complete()
	container, err := c.NewContainer(ctx, gwclient.NewContainerRequest{
		Mounts: []gwclient.Mount{{Dest: pb.RootMount, MountType: pb.MountType_BIND, Ref: ref}}, NetMode: o.Network,
	})
	if err != nil {
		return nil, fmt.Errorf("make container: %w", err)
	}
	defer func() {
		if rerr := container.Release(context.WithoutCancel(ctx)); err == nil && rerr != nil {
			err = fmt.Errorf("remove container: %w", rerr)
		}
	}()
	w := &watch{o: o, program: p, output: newOutput(o.Output, o.Log), events: make(chan profile.Event, 1), quit: make(chan struct{})}
	return w.run(ctx, container)
}

func (o *Options) complete() {
	if o.Time == 0 {
		o.Time = DefaultTime
		if o.condition() != "" {
			o.Time = DefaultPatience
		}
	}
	if o.Grace == 0 {
		o.Grace = DefaultGrace
	}
	if o.Say == nil {
		o.Say = func(string) {}
	}
}

// condition is what is waited for, in words; "" if it is time alone.
func (o *Options) condition() string {
	switch {
	case o.Conditions.Port > 0:
		return fmt.Sprintf("port %d accepted connections", o.Conditions.Port)
	case o.Conditions.Health != nil:
		return "its health check succeeded"
	case o.Log != nil:
		return fmt.Sprintf("a line matched %q", o.Log)
	}
	return ""
}

// watch is one start.
type watch struct {
	o       Options
	program Program
	output  *output
	events  chan profile.Event
	quit    chan struct{} // closed when nobody takes events any more
}

func (w *watch) run(ctx context.Context, container gwclient.Container) (*Started, error) {
	mark := profile.Mark(rand.Text())
	main, err := container.Start(ctx, gwclient.StartRequest{
		Args: w.program.Args, Env: append(slices.Clone(w.program.Env), mark), User: w.program.User, Cwd: w.program.Dir,
		Stdout: w.output.stream(), Stderr: w.output.stream(),
	})
	if err != nil {
		return nil, fmt.Errorf("start program: %w", err)
	}
	conditions, err := json.Marshal(w.o.Conditions)
	if err != nil {
		return nil, err
	}
	r, pipe := io.Pipe()
	var reading sync.WaitGroup
	defer func() {
		close(w.quit)
		r.Close()
		reading.Wait()
	}()
	asking, err := container.Start(ctx, gwclient.StartRequest{Args: []string{string(conditions)}, Env: []string{mark}, Stdout: pipe})
	if err != nil {
		return nil, fmt.Errorf("ask for what is read: %w", err)
	}
	failed := make(chan error, 1)
	reading.Go(func() { failed <- w.read(r) })
	until, end, err := w.follow(ctx, main, failed)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(main.Wait(), asking.Wait()); err != nil {
		return nil, fmt.Errorf("end of the program: %w", err)
	}
	return w.judge(until, end)
}

// read takes events from the engine until the last, or an error.
func (w *watch) read(r io.Reader) error {
	for d := json.NewDecoder(r); ; {
		var e profile.Event
		if err := d.Decode(&e); err != nil {
			return fmt.Errorf("ask for what is read: %w", err)
		}
		select {
		case w.events <- e:
		case <-w.quit:
			return nil
		}
		if e.End != nil {
			_, _ = io.Copy(io.Discard, r) // who writes is not to wait
			return nil
		}
	}
}

// follow waits for the end of the program, and brings it about. until says why; it is "" if nobody did.
func (w *watch) follow(ctx context.Context, main gwclient.ContainerProcess, failed <-chan error) (until string, end *profile.End, err error) {
	var kill <-chan time.Time
	stop := func(why string) error {
		if until != "" {
			return nil // it has been asked already
		}
		until = why
		kill = time.After(w.o.Grace)
		return main.Signal(ctx, w.program.Stop)
	}
	limit := time.After(w.o.Time)
	matched := w.output.matched
	for {
		err = nil
		select {
		case e := <-w.events:
			switch {
			case e.End != nil:
				return until, e.End, nil
			case e.Refused != "":
				return "", nil, fmt.Errorf("%w: %s", ErrRefused, e.Refused)
			default:
				w.o.Say(e.Held)
				err = stop(e.Held)
			}
		case <-matched:
			matched = nil
			err = stop(untilLog)
		case <-limit:
			err = stop(untilTime)
		case <-kill:
			kill = nil
			err = main.Signal(ctx, syscall.SIGKILL)
		case err = <-failed: // before the last event
		case <-ctx.Done():
			return "", nil, context.Cause(ctx)
		}
		if err != nil {
			return "", nil, err
		}
	}
}

// The reasons of an end that are not the engine's, as they stand in profiles.
const (
	untilTime = "time"
	untilLog  = "log"
	untilExit = "exit"
)

// judge says whether the end of a program is one that a profile can be made of.
func (w *watch) judge(until string, end *profile.End) (*Started, error) {
	condition := w.o.condition()
	fail := func(format string, args ...any) (*Started, error) {
		return nil, &Failure{fmt.Sprintf(format, args...), w.output.tail()}
	}
	name := strings.Join(w.program.Args, " ")
	switch {
	case end.Error != "" && end.Code < 0:
		return fail("%s did not start: %s", name, end.Error)
	case until == "" && condition != "":
		return fail("%s ended with exit code %d before %s", name, end.Code, condition)
	case until == "" && end.Code != 0:
		return fail("%s ended with exit code %d", name, end.Code)
	case until == untilTime && condition != "":
		return fail("%s was given up after %s, before %s", name, w.o.Time, condition)
	case end.Error != "":
		return nil, errors.New(end.Error)
	case until == "":
		until = untilExit
	}
	return &Started{Until: until, Layers: end.Layers, Files: end.Files}, nil
}
