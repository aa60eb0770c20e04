package startup

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/optbuild/optbuild/builder/profile"
)

// What is started is what docker would start.
func TestProgramOf(t *testing.T) {
	sh, none := "/bin/sh", ""
	const both = `{"config":{"Entrypoint":["serve"],"Cmd":["-a","-b"],"User":"app","WorkingDir":"/srv","Env":["A=1"]}}`
	for _, c := range []struct {
		config string
		r      Replaced
		want   string
	}{
		{both, Replaced{}, `["serve" "-a" "-b"]`},
		{both, Replaced{Cmd: []string{"-c"}}, `["serve" "-c"]`},
		{both, Replaced{Entrypoint: &sh}, `["/bin/sh"]`},
		{both, Replaced{Entrypoint: &sh, Cmd: []string{"-c", "x"}}, `["/bin/sh" "-c" "x"]`},
		{both, Replaced{Entrypoint: &none, Cmd: []string{"x"}}, `["x"]`},
		{`{"config":{"Cmd":["x"]}}`, Replaced{}, `["x"]`},
		{``, Replaced{Cmd: []string{"x"}}, `["x"]`},
		{``, Replaced{}, ErrNoCommand.Error()},
		{`{}`, Replaced{}, ErrNoCommand.Error()},
		{both, Replaced{Entrypoint: &none}, ErrNoCommand.Error()},
	} {
		p, _, err := ProgramOf([]byte(c.config), c.r)
		got := fmt.Sprintf("%q", p.Args)
		if err != nil {
			got = err.Error()
		}
		if got != c.want || err != nil && !errors.Is(err, ErrNoCommand) {
			t.Errorf("%s %+v: got %s, want %s", c.config, c.r, got, c.want)
		}
	}
	p, _, err := ProgramOf([]byte(both), Replaced{})
	if err != nil || p.User != "app" || p.Dir != "/srv" || !reflect.DeepEqual(p.Env, []string{"A=1"}) || p.Stop != syscall.SIGTERM || p.Health != nil {
		t.Errorf("got %+v, %v", p, err)
	}
	if p, _, err := ProgramOf([]byte(`{"config":{"Cmd":["x"],"StopSignal":"SIGQUIT"}}`), Replaced{}); err != nil || p.Stop != syscall.SIGQUIT {
		t.Errorf("got %+v, %v", p, err)
	}
	if _, _, err := ProgramOf([]byte(`{"config":{"Cmd":["x"],"StopSignal":"SIGNO"}}`), Replaced{}); err == nil {
		t.Error("no error")
	}
	if _, _, err := ProgramOf([]byte(`[]`), Replaced{}); err == nil {
		t.Error("no error")
	}
}

func TestHealth(t *testing.T) {
	for check, want := range map[string]*profile.Health{
		`{}`:                        nil,
		`{"Test":["NONE"]}`:         nil,
		`{"Test":["NONE","x"]}`:     nil,
		`{"Test":["CMD","x","-y"]}`: {Args: []string{"x", "-y"}, Timeout: defaultTimeout},
		`{"Test":["CMD-SHELL","x | y"],"Timeout":1000}`: {Args: []string{"/bin/bash", "-c", "x | y"}, Timeout: time.Microsecond},
	} {
		p, _, err := ProgramOf([]byte(`{"config":{"Cmd":["x"],"Shell":["/bin/bash","-c"],"Healthcheck":`+check+`}}`), Replaced{})
		if err != nil || !reflect.DeepEqual(p.Health, want) {
			t.Errorf("%s: got %+v, %v, want %+v", check, p.Health, err, want)
		}
	}
	p, _, err := ProgramOf([]byte(`{"config":{"Cmd":["x"],"Healthcheck":{"Test":["CMD-SHELL","x"]}}}`), Replaced{})
	if err != nil || p.Health.Args[0] != "/bin/sh" {
		t.Errorf("got %+v, %v", p.Health, err)
	}
}

func TestOutput(t *testing.T) {
	var shown strings.Builder
	o := newOutput(&shown, regexp.MustCompile("^re+ady$"))
	matched := func() bool {
		select {
		case <-o.matched:
			return true
		default:
			return false
		}
	}
	out, errs := o.stream(), o.stream()
	write := func(w io.Writer, s string) {
		t.Helper()
		if n, err := w.Write([]byte(s)); n != len(s) || err != nil {
			t.Errorf("got %d, %v", n, err)
		}
	}
	write(out, "not ready\r\nre")
	write(errs, "ady\n")
	if matched() {
		t.Error("lines of two streams are one")
	}
	write(out, "eady")
	if !matched() {
		t.Error("a line without an end does not match")
	}
	write(out, "\nready\n")
	write(errs, "last")
	if err := errs.Close(); err != nil {
		t.Error(err)
	}
	if got, want := o.tail(), []string{"not ready", "ady", "reeady", "ready", "last"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := shown.String(); got != "not ready\r\nready\neady\nready\nlast" {
		t.Errorf("shown: %q", got)
	}
	for i := range 100 {
		write(out, fmt.Sprintln(i))
	}
	if got := o.tail(); len(got) != keptLines || got[0] != "80" {
		t.Errorf("got %q", got)
	}
	write(out, strings.Repeat("x", 3*lineBytes))
	if got := len(out.(*stream).part); got > lineBytes {
		t.Errorf("%d bytes are kept of a line", got)
	}
}
