package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/opencontainers/go-digest"

	"github.com/optbuild/optbuild/builder/outcome"
	"github.com/optbuild/optbuild/frontend"
	"github.com/optbuild/optbuild/frontend/explain"
	"github.com/optbuild/optbuild/frontend/plan"
)

func statusOf(vertex digest.Digest, o outcome.Outcome, at *time.Time) *client.VertexStatus {
	id, name := o.Status()
	return &client.VertexStatus{ID: id, Name: name, Vertex: vertex, Started: at, Completed: at}
}

// TestStepOutcomes: what a build's events say of its steps.
func TestStepOutcomes(t *testing.T) {
	at := func(s int) *time.Time {
		v := time.Unix(1e9+int64(s), 0)
		return &v
	}
	d := func(name string) digest.Digest { return digest.FromString(name) }
	r := newRecorder(t.TempDir())
	defer r.close()
	r.observe(&client.SolveStatus{
		Vertexes: []*client.Vertex{
			{Digest: d("context"), Name: "[internal] load build context", Started: at(0), Completed: at(1)},
			{Digest: d("from"), Name: "[build 1/9] FROM a", Started: at(0), Completed: at(1)},
			{Digest: d("from2"), Name: "[stage-1 1/2] FROM b", Started: at(0), Completed: at(2)},
			{Digest: d("cached"), Name: "[build 2/9] WORKDIR /app", Started: at(0), Completed: at(0), Cached: true},
			{Digest: d("replayed"), Name: "[linux/arm64 build 3/9] RUN r\nmore", Started: at(0), Completed: at(1)},
			{Digest: d("ran"), Name: "[build 4/9] RUN s", Started: at(0)},
			{Digest: d("ran"), Name: "[build 4/9] RUN s", Started: at(0), Completed: at(3)},
			{Digest: d("failed"), Name: "[build 5/9] RUN f", Started: at(0), Completed: at(4), Error: "exit code: 1"},
			{Digest: d("stopped"), Name: "[build 6/9] RUN c", Started: at(0), Completed: at(4), Error: "x: context canceled"},
			{Digest: d("running"), Name: "[build 7/9] RUN d", Started: at(0)},
			{Digest: d("waiting"), Name: "[build 8/9] RUN w"},
			{Digest: d("one"), Name: "[build 9/9] COPY a b", Started: at(0), Completed: at(1), Cached: true},
			{Digest: d("other"), Name: "[build 9/9] COPY a b", Started: at(0), Completed: at(2)},
			{Digest: d("export"), Name: "exporting to image", Started: at(0), Completed: at(1)},
		},
		Statuses: []*client.VertexStatus{
			{ID: "resolve a", Vertex: d("from")}, {ID: "resolve b", Vertex: d("from2")}, {ID: string(d("layer")), Vertex: d("from2"), Current: 1},
			statusOf(d("replayed"), outcome.Outcome{Result: outcome.Replayed, Observed: 7, Platform: "linux/arm64/v8"}, at(1)),
			statusOf(d("ran"), outcome.Outcome{Result: outcome.Executed, Reason: "a changed", Details: []string{"a changed", "b is new"}, Observed: 3}, at(3)),
			statusOf(d("failed"), outcome.Outcome{Result: outcome.Unwatched, Reason: outcome.FirstBuild, Unseen: "u", Machine: true}, at(4)),
		},
	})
	text := func(steps []toldStep) string {
		var b strings.Builder
		for _, s := range steps {
			fmt.Fprintf(&b, "%d %s %s %q %s %q %q %q %d %gs %v\n", s.Line, s.Stage, s.Platform, s.Step, s.Outcome, s.Reason, s.Details, s.Unseen, s.Observed, s.Seconds, s.machine)
		}
		return b.String()
	}
	got := text(r.outcomes.steps(nil, true, r.times))
	want := `0 build  "FROM a" cached "" [] "" 0 1s false
0 stage-1  "FROM b" executed "" [] "" 0 2s false
0 build  "WORKDIR /app" cached "" [] "" 0 0s false
0 build linux/arm64/v8 "RUN r\nmore" replayed "" [] "" 7 1s false
0 build  "RUN s" executed "a changed" ["b is new"] "" 3 3s false
0 build  "RUN f" failed "first build" [] "u" 0 4s true
0 build  "RUN c" canceled "" [] "" 0 4s false
0 build  "RUN d" canceled "" [] "" 0 0s false
0 build  "RUN w" skipped "" [] "" 0 0s false
0 build  "COPY a b" executed "" [] "" 0 2s false
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	report := &frontend.Report{Steps: map[string]frontend.Vertex{string(d("ran")): {Lines: plan.Lines{First: 4, Last: 5}, Step: 1}, string(d("replayed")): {Step: 2}}}
	got = text(r.outcomes.steps(report, false, r.times))
	if !strings.Contains(got, "4 build  \"RUN s\"") || strings.Contains(got, "RUN w") {
		t.Errorf("with a report, got\n%s", got)
	}
	// What was replayed did not run: what it takes is not what it took now.
	if m := r.times.measures(report, nil); m[2].State != explain.Cached || m[2].Seconds != 0 || m[1].State != explain.Ran {
		t.Errorf("measures %v", m)
	}
}

// TestFindLines: lines of a failed build, and the order of its steps.
func TestFindLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "Dockerfile")
	file := "ARG V\nFROM a AS build\nRUN one &&\\\n  two\nCOPY $V .\nRUN twice\nRUN twice\nFROM b\nRUN one && two\n"
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	steps := []toldStep{
		{Vertex: "1", Stage: "stage-1", Step: "FROM docker.io/b"}, {Vertex: "2", Stage: "stage-1", Step: "RUN one && two"},
		{Vertex: "3", Stage: "build", Step: "FROM docker.io/a"}, {Vertex: "4", Stage: "build", Step: "COPY x ."}, {Vertex: "5", Stage: "build", Step: "RUN twice"},
		{Vertex: "7", Stage: "build", Step: "RUN one &&  two"}, {Vertex: "6", Stage: "other", Step: "RUN one && two"},
	}
	findLines(steps, path)
	sortSteps(steps)
	var got strings.Builder
	for _, s := range steps {
		fmt.Fprintf(&got, "%d-%d %s %s\n", s.Line, s.LastLine, s.Stage, s.Step)
	}
	want := `2-2 build FROM docker.io/a
0-0 build COPY x .
0-0 build RUN twice
3-4 build RUN one &&  two
0-0 other RUN one && two
8-8 stage-1 FROM docker.io/b
9-9 stage-1 RUN one && two
`
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}

func TestSplitName(t *testing.T) {
	for name, want := range map[string]string{
		"[2/5] RUN a] b":                            "||RUN a] b|true",
		"[build 2/5] RUN a":                         "build||RUN a|true",
		"[linux/arm64 build 12/15] COPY a b":        "build|linux/arm64|COPY a b|true",
		"[linux/amd64->arm/v7 stage-1 1/1] FROM x":  "stage-1|linux/amd64->arm/v7|FROM x|true",
		"[internal] load build context":             "|||false",
		"[auth] library/debian:pull token for x.io": "|||false",
		"exporting to image":                        "|||false",
		"RUN [ 1/2 ] x":                             "|||false",
		"[] x":                                      "|||false",
		"":                                          "|||false",
	} {
		stage, platform, text, ok := splitName(name)
		if got := fmt.Sprintf("%s|%s|%s|%v", stage, platform, text, ok); got != want {
			t.Errorf("%q: got %s, want %s", name, got, want)
		}
	}
}

// TestOutcomeDisplay: an outcome is a line of the log in plain progress, on a line of its own, and a status elsewhere; what goes without saying is not shown.
func TestOutcomeDisplay(t *testing.T) {
	at := time.Unix(1e9, 0)
	status := &client.SolveStatus{
		Logs: []*client.VertexLog{{Vertex: "v", Data: []byte("no end")}},
		Statuses: []*client.VertexStatus{
			{ID: "pulling", Vertex: "p"},
			statusOf("v", outcome.Outcome{Result: outcome.Replayed}, &at),
			statusOf("w", outcome.Outcome{Result: outcome.Executed, Reason: outcome.FirstBuild}, &at),
			statusOf("x", outcome.Outcome{Result: outcome.Unwatched, Reason: "a\tchanged", Unseen: "no fuse", Machine: true}, &at),
			statusOf("y", outcome.Outcome{Result: outcome.Unwatched, Reason: "a changed", Unseen: "writable"}, &at),
		},
	}
	for mode, want := range map[progressui.DisplayMode]string{
		progressui.PlainMode: `status pulling
log v "no end"
log v "\nreplayed: nothing that it read has changed\n"
log x "ran: a changed\n"
log y "ran, not watched (writable): a changed\n"
`,
		progressui.TtyMode: `status pulling
status replayed: nothing that it read has changed
status ran: a changed
status ran, not watched (writable): a changed
log v "no end"
`,
	} {
		d := &outcomeDisplay{mode: mode, partial: map[digest.Digest]bool{}}
		var got strings.Builder
		shown := d.show(status)
		for _, st := range shown.Statuses {
			fmt.Fprintf(&got, "status %s\n", st.ID)
		}
		for _, l := range shown.Logs {
			fmt.Fprintf(&got, "log %s %q\n", l.Vertex, l.Data)
		}
		if got.String() != want {
			t.Errorf("%s: got\n%s\nwant\n%s", mode, got.String(), want)
		}
	}
	if len(status.Statuses) != 5 || len(status.Logs) != 1 {
		t.Error("what others see was changed")
	}
}
