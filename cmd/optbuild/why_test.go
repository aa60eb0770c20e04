package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/optbuild/optbuild/builder/outcome"
)

// lastBuild has steps of every kind.
func lastBuild() toldBuild {
	return toldBuild{
		Target: "app", Ended: time.Unix(1e9, 0), Steps: []toldStep{
			{Step: "FROM node", Line: 1, LastLine: 1, Outcome: becameCached},
			{Step: "WORKDIR /app", Line: 2, LastLine: 2, Outcome: becameCached},
			{Step: "COPY . .", Line: 3, LastLine: 3, Outcome: "executed", Seconds: 0.04},
			{Step: "RUN npm ci", Line: 4, LastLine: 4, Outcome: "replayed", Observed: 14},
			{Step: "RUN npm run build", Line: 5, LastLine: 5, Outcome: "executed", Seconds: 3.1, Observed: 1, Reason: "src/app.ts changed", Details: []string{"src/b.ts is new", "\x1b[31mred"}},
			{Step: "RUN --mount=target=/x,rw make", Platform: "linux/amd64", Line: 6, LastLine: 8, Outcome: "unwatched", Seconds: 120.2, Unseen: "its bind mount /x is writable", Reason: "x"},
			{Step: "RUN --mount=target=/x,rw make", Platform: "linux/arm64", Line: 6, LastLine: 8, Outcome: becameFailed, Seconds: 1, Reason: "first build"},
			{Step: "RUN " + strings.Repeat("long ", 30), Line: 9, LastLine: 9, Outcome: becameCanceled},
			{Step: "RUN of somewhere", Outcome: becameNothing},
		},
	}
}

func TestPrintSteps(t *testing.T) {
	var out strings.Builder
	if err := printSteps(&out, lastBuild(), time.Unix(1e9+120, 0)); err != nil {
		t.Fatal(err)
	}
	want := `Dockerfile:1    FROM node                                         cached
Dockerfile:2    WORKDIR /app                                      cached
Dockerfile:3    COPY . .                                          ran 0.0s
Dockerfile:4    RUN npm ci                                        replayed: nothing that it read has changed (it looked up 14 names in what was copied)
Dockerfile:5    RUN npm run build                                 ran 3.1s: src/app.ts changed (and 2 more)
Dockerfile:6-8  (linux/amd64) RUN --mount=target=/x,rw make       ran 120s, not watched: x
Dockerfile:6-8  (linux/arm64) RUN --mount=target=/x,rw make       ran 1.0s and failed: first build
Dockerfile:9    RUN long long long long long long long long l...  canceled
                RUN of somewhere                                  not reached

Dockerfile, target app, 2 minutes ago: 1 replayed, 5 ran, 2 cached
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestPrintStep(t *testing.T) {
	b := lastBuild()
	var out strings.Builder
	for _, arg := range []string{"5", "Dockerfile:7"} {
		steps, err := b.choose(arg)
		if err != nil {
			t.Fatal(err)
		}
		if err := printStep(&out, b, steps); err != nil {
			t.Fatal(err)
		}
	}
	want := `Dockerfile:5  RUN npm run build
ran 3.1s: src/app.ts changed (and 2 more)
  src/b.ts is new
  \u001b[31mred
it looked up 1 name in what was copied: while what it found stays as it is, it need not run again
Dockerfile:6-8  (linux/amd64) RUN --mount=target=/x,rw make
ran 120s, not watched: x
not watched, so that it runs again after every change before it: its bind mount /x is writable
Dockerfile:6-8  (linux/arm64) RUN --mount=target=/x,rw make
ran 1.0s and failed: first build
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// TestPrintWhyJSON pins the names of the fields: scripts read them.
func TestPrintWhyJSON(t *testing.T) {
	b := toldBuild{Dockerfile: "/w/Dockerfile"}
	var out strings.Builder
	err := printWhyJSON(&out, b, []toldStep{
		{Step: "RUN a > b", Stage: "s", Platform: "p", Line: 1, LastLine: 2, Vertex: "v", Outcome: "executed", Reason: "r", Details: []string{"d"}, Unseen: "u", Observed: 3, Seconds: 1.5},
		{Step: "WORKDIR /", Vertex: "w", Outcome: "cached"},
	})
	want := `{"step":"RUN a > b","stage":"s","platform":"p","file":"/w/Dockerfile","line":1,"lastLine":2,"vertex":"v","outcome":"executed","reason":"r","details":["d"],"unseen":"u","observed":3,"seconds":1.5}
{"step":"WORKDIR /","file":"/w/Dockerfile","vertex":"w","outcome":"cached","seconds":0}
`
	if err != nil || out.String() != want {
		t.Errorf("%v, got\n%s\nwant\n%s", err, out.String(), want)
	}
}

func TestChooseStep(t *testing.T) {
	b := lastBuild()
	b.Dockerfile = "/work/app/Dockerfile"
	unknown := toldBuild{Steps: []toldStep{{Step: "RUN a"}}}
	for _, c := range []struct {
		b    toldBuild
		arg  string
		want string // the texts, or the error
	}{
		{b, "4", "RUN npm ci"},
		{b, "Dockerfile:4", "RUN npm ci"},
		{b, "./app/Dockerfile:4", "RUN npm ci"},
		{b, "/work/app/Dockerfile:4", "RUN npm ci"},
		{b, "other:4", `"other:4" is in no step's text`},
		{b, "7", "RUN --mount=target=/x,rw make|RUN --mount=target=/x,rw make"},
		{b, "npm CI", "RUN npm ci"},
		{b, "run npm run build", "RUN npm run build"},
		{b, "somewhere", "RUN of somewhere"},
		{b, "make", "RUN --mount=target=/x,rw make|RUN --mount=target=/x,rw make"},
		{b, "npm", `"npm" is in the text of several steps`},
		{b, "10", "10: no step of this build is in that line"},
		{b, "0", "0: no step of this build is in that line"},
		{b, "cargo", `"cargo" is in no step's text`},
		{b, " ", "which step? Name a line of the Dockerfile or a part of the step's text"},
		{unknown, "1", "1: it is not known which lines the steps of this build are in"},
	} {
		steps, err := c.b.choose(c.arg)
		var texts []string
		for _, s := range steps {
			texts = append(texts, s.Step)
		}
		got := strings.Join(texts, "|")
		if err != nil {
			got = err.Error()
			if exitCode(err) != exitUsage {
				t.Errorf("%q: exit code %d", c.arg, exitCode(err))
			}
		}
		if got != c.want {
			t.Errorf("%q: got %q, want %q", c.arg, got, c.want)
		}
	}
	_, err := b.choose("npm")
	var h *hinted
	if want := "name one of them:\n/work/app/Dockerfile:4  RUN npm ci\n/work/app/Dockerfile:5  RUN npm run build"; !errors.As(err, &h) || h.hint != want {
		t.Errorf("hint of %v", err)
	}
}

// TestSummary: a build says something only when a step was replayed or ran again, and when no step can be watched.
func TestSummary(t *testing.T) {
	run := func(result outcome.Result, reason string) toldStep {
		return toldStep{Step: "RUN x", Outcome: string(result), Reason: reason}
	}
	copied := toldStep{Step: "COPY . .", Outcome: "executed", Reason: "a changed"}
	blind := toldStep{Step: "RUN x", Outcome: "unwatched", Reason: outcome.FirstBuild, Unseen: "there is no /dev/fuse here", machine: true}
	for _, c := range []struct {
		steps []toldStep
		want  string
	}{
		{nil, ""},
		{[]toldStep{copied, run("cached", "")}, ""},
		{[]toldStep{run("executed", outcome.FirstBuild), run("executed", "")}, ""},
		{[]toldStep{copied, run("executed", "a changed")}, "1 step ran (optbuild why)"},
		{[]toldStep{run("replayed", ""), run("replayed", ""), copied}, "2 steps replayed (optbuild why)"},
		{[]toldStep{run("replayed", ""), run("executed", "a changed")}, "1 step replayed, 1 ran (optbuild why)"},
		{[]toldStep{blind, blind}, "steps were not watched, so none can be replayed: there is no /dev/fuse here"},
	} {
		if got := strings.Join(toldBuild{Steps: c.steps}.summary(), "\n"); got != c.want {
			t.Errorf("%+v: got %q, want %q", c.steps, got, c.want)
		}
	}
}

// TestWhyFile: the last builds are kept, newest first, as many as have room.
func TestWhyFile(t *testing.T) {
	state := t.TempDir()
	path := filepath.Join(state, whyName)
	write := func(b toldBuild) {
		t.Helper()
		if err := b.write(state); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Size() > whyBytes {
			t.Fatalf("%v, %d bytes", err, info.Size())
		}
	}
	targets := func() (list string) {
		for _, b := range readWhy(state) {
			list += b.Target + " "
		}
		return strings.TrimSpace(list)
	}
	for _, damaged := range []string{"", "\n\n", "{", "[]", `{"version":2,"steps":[]}`, "\x00\xff"} {
		if err := os.WriteFile(path, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := targets(); got != "" {
			t.Errorf("%q: %s", damaged, got)
		}
	}
	for i := range whyBuilds + 5 {
		write(toldBuild{Target: fmt.Sprint(i)})
	}
	if got := readWhy(state); len(got) != whyBuilds || got[0].Target != "24" || got[whyBuilds-1].Target != "5" {
		t.Errorf("kept %s", targets())
	}

	// One line is damaged: the others are there.
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitN(string(b), "\n", 4)
	if err := os.WriteFile(path, []byte(lines[0]+"\n"+lines[1][:20]+"\n"+lines[2]+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := targets(); got != "24 22" {
		t.Errorf("got %s", got)
	}
	write(toldBuild{Target: "new"})
	if got := targets(); got != "new 24 22" {
		t.Errorf("got %s", got)
	}

	// A large build takes the room of old ones, and a huge one is cut.
	large := toldBuild{Target: "large"}
	for range 400 {
		large.Steps = append(large.Steps, toldStep{Step: strings.Repeat("x", longestStep)})
	}
	write(large)
	if got := targets(); got != "large new 24 22" {
		t.Errorf("got %s", got)
	}
	large.Steps = append(large.Steps, large.Steps...)
	write(large)
	if got := readWhy(state); len(got) != 1 || !got[0].Cut || len(got[0].Steps) != 400 {
		t.Errorf("got %s, %d steps, cut %v", targets(), len(got[0].Steps), got[0].Cut)
	}
}

// TestWhyFileConcurrent: of builds that end at once, none is forgotten.
func TestWhyFileConcurrent(t *testing.T) {
	state := t.TempDir()
	errs := make(chan error)
	for i := range whyBuilds {
		go func() { errs <- toldBuild{Target: fmt.Sprint(i)}.write(state) }()
	}
	for range whyBuilds {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if got := readWhy(state); len(got) != whyBuilds {
		t.Errorf("%d builds", len(got))
	}
}

// TestStepsLog: each build appends.
func TestStepsLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "steps")
	b := toldBuild{Steps: []toldStep{{Step: "RUN a && b", Vertex: "v", Outcome: "replayed", Observed: 2}}}
	for range 2 {
		if err := b.log(path); err != nil {
			t.Fatal(err)
		}
	}
	line := `{"step":"RUN a && b","vertex":"v","outcome":"replayed","reason":"","observed":2}` + "\n"
	if got, err := os.ReadFile(path); err != nil || string(got) != line+line || !json.Valid([]byte(line)) {
		t.Errorf("%v, got %s", err, got)
	}
}
