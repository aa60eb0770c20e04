package startup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"

	"github.com/optbuild/optbuild/builder/profile"
)

// fake is a container whose program does as the test says. Its engine tells the end.
type fake struct {
	gwclient.Client
	gwclient.Container
	program  func(f *fake, out io.Writer) profile.End // returns when it has ended
	events   []profile.Event                          // told at once
	signals  chan syscall.Signal
	released bool
	work     sync.WaitGroup
	mark     string
	asked    string
	end      chan profile.End
}

func (f *fake) NewContainer(context.Context, gwclient.NewContainerRequest) (gwclient.Container, error) {
	return f, nil
}

func (f *fake) Start(_ context.Context, r gwclient.StartRequest) (gwclient.ContainerProcess, error) {
	mark := r.Env[len(r.Env)-1]
	if f.mark == "" {
		f.mark = mark
		done := make(chan struct{})
		f.work.Go(func() {
			defer close(done)
			f.end <- f.program(f, r.Stdout)
		})
		return fakeProcess{f, done}, nil
	}
	if mark != f.mark {
		return nil, fmt.Errorf("started with mark %s and asked with %s", f.mark, mark)
	}
	f.asked = strings.Join(r.Args, " ")
	done := make(chan struct{})
	f.work.Go(func() {
		defer close(done)
		e := json.NewEncoder(r.Stdout)
		for _, event := range f.events {
			_ = e.Encode(event)
		}
		if end, ok := <-f.end; ok {
			_ = e.Encode(profile.Event{End: &end})
		}
		_, _ = r.Stdout.Write([]byte("\n\n"))
	})
	return fakeProcess{f, done}, nil
}

func (f *fake) Release(context.Context) error {
	f.released = true
	return nil
}

type fakeProcess struct {
	f    *fake
	done chan struct{}
}

func (p fakeProcess) Wait() error                                      { <-p.done; return nil }
func (p fakeProcess) Resize(context.Context, gwclient.WinSize) error   { return nil }
func (p fakeProcess) Signal(_ context.Context, s syscall.Signal) error { p.f.signals <- s; return nil }

func files(names ...string) (list []profile.File) {
	for _, n := range names {
		list = append(list, profile.File{Path: n, Type: profile.Regular, Read: true})
	}
	return list
}

// untilSignal ends when it is asked to.
func untilSignal(f *fake, _ io.Writer) profile.End {
	if s := <-f.signals; s != syscall.SIGTERM {
		return profile.End{Code: -1, Error: "got " + s.String()}
	}
	return profile.End{Code: 143, Layers: 2, Files: files("/a", "/b")}
}

func start(t *testing.T, f *fake, o Options) (*Started, error) {
	t.Helper()
	f.signals, f.end = make(chan syscall.Signal, 2), make(chan profile.End, 1)
	s, err := Watch(t.Context(), f, nil, Program{Args: []string{"serve", "-x"}, Stop: syscall.SIGTERM}, o)
	if !f.released {
		t.Error("the container is still there")
	}
	f.work.Wait()
	return s, err
}

func TestWatch(t *testing.T) {
	ready := regexp.MustCompile("^ready$")
	prints := func(text string) func(*fake, io.Writer) profile.End {
		return func(f *fake, out io.Writer) profile.End {
			_, _ = io.WriteString(out, text)
			return untilSignal(f, out)
		}
	}
	exits := func(code int, text string) func(*fake, io.Writer) profile.End {
		return func(_ *fake, out io.Writer) profile.End {
			_, _ = io.WriteString(out, "log of it\n")
			return profile.End{Code: code, Error: text, Files: files("/a")}
		}
	}
	port := Options{Conditions: profile.Conditions{Port: 80}}
	short := func(o Options) Options { o.Time = time.Millisecond; return o }
	for name, c := range map[string]struct {
		fake *fake
		o    Options
		want string // what ended it, or the error
	}{
		"time":                  {&fake{program: untilSignal}, short(Options{}), "time"},
		"line":                  {&fake{program: prints("up\nready\n")}, Options{Log: ready}, "log"},
		"prompt":                {&fake{program: prints("up\nready")}, Options{Log: ready}, "log"},
		"port":                  {&fake{program: untilSignal, events: []profile.Event{{Held: "port 80"}}}, port, "port 80"},
		"told twice":            {&fake{program: untilSignal, events: []profile.Event{{Held: "port 80"}, {Held: "port 80"}}}, port, "port 80"},
		"exit":                  {&fake{program: exits(0, "")}, Options{}, "exit"},
		"exit with a code":      {&fake{program: exits(3, "")}, Options{}, "serve -x ended with exit code 3"},
		"exit too early":        {&fake{program: exits(0, "")}, port, "serve -x ended with exit code 0 before port 80 accepted connections"},
		"never ready":           {&fake{program: prints("up\n")}, short(Options{Log: ready}), `serve -x was given up after 1ms, before a line matched "^ready$"`},
		"never started":         {&fake{program: exits(-1, "no runc")}, Options{}, "serve -x did not start: no runc"},
		"nothing known":         {&fake{program: exits(0, "the viewer ended")}, Options{}, "the viewer ended"},
		"condition not to find": {&fake{program: untilSignal, events: []profile.Event{{Refused: "taken"}}}, port, "wait for the program to be ready: taken"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "condition not to find" {
				c.fake.program = func(*fake, io.Writer) profile.End { return profile.End{} }
			}
			s, err := start(t, c.fake, c.o)
			switch {
			case err != nil && err.Error() != c.want:
				t.Errorf("got %v, want %s", err, c.want)
			case err == nil && s.Until != c.want:
				t.Errorf("got %+v, want %s", s, c.want)
			}
			var failure *Failure
			if errors.As(err, &failure) && strings.HasPrefix(name, "exit") && !reflect.DeepEqual(failure.Log, []string{"log of it"}) {
				t.Errorf("got log %q", failure.Log)
			}
		})
	}
}

// A program that does not end when it is asked to is killed.
func TestKill(t *testing.T) {
	f := &fake{program: func(f *fake, _ io.Writer) profile.End {
		first, second := <-f.signals, <-f.signals
		if first != syscall.SIGTERM || second != syscall.SIGKILL {
			t.Errorf("got %s, %s", first, second)
		}
		return profile.End{Code: 137, Files: files("/a")}
	}}
	s, err := start(t, f, Options{Time: time.Millisecond, Grace: time.Millisecond})
	if err != nil || len(s.Files) != 1 {
		t.Errorf("got %+v, %v", s, err)
	}
	if f.asked != "{}" {
		t.Errorf("asked for %s", f.asked)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	f := &fake{signals: make(chan syscall.Signal), end: make(chan profile.End, 1)}
	block := make(chan struct{})
	f.program = func(*fake, io.Writer) profile.End {
		cancel(stopped)
		<-block
		return profile.End{}
	}
	_, err := Watch(ctx, f, nil, Program{Args: []string{"x"}, Stop: syscall.SIGTERM}, Options{})
	if !errors.Is(err, stopped) || !f.released {
		t.Errorf("got %v; released: %v", err, f.released)
	}
	close(block)
	f.work.Wait()
}
