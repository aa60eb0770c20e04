package profiler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/buildkit/executor"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"

	"github.com/optbuild/optbuild/builder/profile"
)

// fakeExecutor runs functions in place of containers.
type fakeExecutor struct {
	run  func(context.Context, executor.ProcessInfo) error
	exec func(context.Context, executor.ProcessInfo) error
}

func (f *fakeExecutor) Run(ctx context.Context, _ string, _ executor.Mount, _ []executor.Mount, p executor.ProcessInfo, started chan<- struct{}) (resourcestypes.Recorder, error) {
	close(started)
	return nil, f.run(ctx, p)
}

func (f *fakeExecutor) Exec(ctx context.Context, _ string, p executor.ProcessInfo) error {
	return f.exec(ctx, p)
}

func wrapped(t *testing.T, f *fakeExecutor) *watchingExecutor {
	t.Helper()
	p, err := New(t.TempDir()+"/views", "/nonexistent")
	if err != nil {
		t.Fatal(err)
	}
	p.supported = func() error { return nil }
	return &watchingExecutor{f, p}
}

func marked(token string, args ...string) executor.ProcessInfo {
	return executor.ProcessInfo{Meta: executor.Meta{Args: args, Env: []string{"A=1", profile.Mark(token)}}}
}

type closer struct{ io.Writer }

func (closer) Close() error { return nil }

// ask returns the events of a container.
func ask(t *testing.T, e *watchingExecutor, token, conditions string) []profile.Event {
	t.Helper()
	var b strings.Builder
	p := marked(token, conditions)
	p.Stdout = closer{&b}
	if err := e.Exec(t.Context(), "id", p); err != nil {
		t.Fatal(err)
	}
	var events []profile.Event
	for d := json.NewDecoder(strings.NewReader(b.String())); ; {
		var event profile.Event
		if err := d.Decode(&event); errors.Is(err, io.EOF) {
			return events
		} else if err != nil {
			t.Fatal(err)
		}
		events = append(events, event)
	}
}

// Processes without a mark are none of ours.
func TestUnmarked(t *testing.T) {
	failed := errors.New("failed")
	e := wrapped(t, &fakeExecutor{
		run:  func(context.Context, executor.ProcessInfo) error { return failed },
		exec: func(context.Context, executor.ProcessInfo) error { return failed },
	})
	p := executor.ProcessInfo{Meta: executor.Meta{Env: []string{"A=1"}}}
	if _, err := e.Run(t.Context(), "id", executor.Mount{}, nil, p, make(chan struct{})); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
	if err := e.Exec(t.Context(), "id", p); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
}

// A container that ends has no error of its own: who asks is told, once.
func TestEnd(t *testing.T) {
	for want, end := range map[string]error{
		"0 its root file system": nil,
		"7 its root file system": &gatewayapi.ExitError{ExitCode: 7},
		"-1 no runc":             errors.New("no runc"),
		"-1 odd":                 &gatewayapi.ExitError{ExitCode: gatewayapi.UnknownExitStatus, Err: errors.New("odd")},
	} {
		e := wrapped(t, &fakeExecutor{run: func(_ context.Context, p executor.ProcessInfo) error {
			if len(p.Meta.Env) != 1 {
				t.Errorf("the program is given %q", p.Meta.Env)
			}
			return end
		}})
		started := make(chan struct{})
		if _, err := e.Run(t.Context(), "id", executor.Mount{}, nil, marked("x"), started); err != nil {
			t.Fatal(err)
		}
		<-started
		events := ask(t, e, "x", "{}")
		if len(events) != 1 || events[0].End == nil {
			t.Fatalf("got %v", events)
		}
		code, text, _ := strings.Cut(want, " ")
		if got := events[0].End; fmt.Sprint(got.Code) != code || !strings.Contains(got.Error, text) {
			t.Errorf("got %+v, want %s", got, want)
		}
		if again := ask(t, e, "x", "{}"); again[0].End == nil || again[0].End.Code != -1 || !strings.Contains(again[0].End.Error, "no such container") {
			t.Errorf("got %v", again)
		}
		left, err := os.ReadDir(e.p.dir)
		if err != nil || len(left) > 0 {
			t.Errorf("left %v, %v", left, err)
		}
	}
}

// Where nothing can be watched, nothing is run.
func TestUnsupported(t *testing.T) {
	e := wrapped(t, &fakeExecutor{run: func(context.Context, executor.ProcessInfo) error {
		t.Error("it ran")
		return nil
	}})
	e.p.supported = func() error { return errors.New("no /dev/fuse") }
	started := make(chan struct{})
	if _, err := e.Run(t.Context(), "id", executor.Mount{}, nil, marked("x"), started); err != nil {
		t.Fatal(err)
	}
	<-started
	if events := ask(t, e, "x", "{}"); events[0].End.Error != "no /dev/fuse" || events[0].End.Code != -1 {
		t.Errorf("got %+v", events[0].End)
	}
}

// Conditions are looked for while the program runs; signals reach it.
func TestConditions(t *testing.T) {
	tries := 0
	stop := make(chan syscall.Signal)
	e := wrapped(t, &fakeExecutor{
		run: func(_ context.Context, p executor.ProcessInfo) error {
			if s := <-p.Signal; s != syscall.SIGTERM {
				t.Errorf("got %s", s)
			}
			return nil
		},
		exec: func(_ context.Context, p executor.ProcessInfo) error {
			if p.Meta.Args[0] != "check" || len(p.Meta.Env) != 1 {
				t.Errorf("health check has %q, %q", p.Meta.Args, p.Meta.Env)
			}
			if tries++; tries < 3 {
				return &gatewayapi.ExitError{ExitCode: 1}
			}
			return nil
		},
	})
	ended := make(chan struct{})
	started := make(chan struct{})
	program := marked("x")
	program.Signal = stop
	go func() {
		defer close(ended)
		if _, err := e.Run(t.Context(), "id", executor.Mount{}, nil, program, started); err != nil {
			t.Error(err)
		}
	}()
	<-started
	r, w := io.Pipe()
	asking := marked("x", `{"health":{"args":["check"],"timeout":1000000000}}`)
	asking.Stdout = w
	go func() {
		if err := e.Exec(t.Context(), "id", asking); err != nil {
			t.Error(err)
		}
	}()
	d := json.NewDecoder(r)
	var event profile.Event
	if err := d.Decode(&event); err != nil || event.Held != "healthy" || tries != 3 {
		t.Errorf("got %+v, %v after %d tries", event, err, tries)
	}
	stop <- syscall.SIGTERM
	event = profile.Event{}
	if err := d.Decode(&event); err != nil || event.End == nil {
		t.Errorf("got %+v, %v", event, err)
	}
	<-ended
}

func TestListening(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if !listening("self")[port] {
		t.Errorf("port %d is not listened on", port)
	}
	l.Close()
	if listening("self")[port] {
		t.Errorf("port %d is listened on", port)
	}
	if got := listening("0"); len(got) != 0 {
		t.Errorf("got %v of no process", got)
	}
	if !sameNetwork("self") || sameNetwork("0") {
		t.Error("the network of this process is another one than its own")
	}
}
