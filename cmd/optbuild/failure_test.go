package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/moby/buildkit/util/progress/progressui"

	"github.com/optbuild/optbuild/builder/request"
	"github.com/optbuild/optbuild/frontend/diagnose"
)

func lines(first, last int32) []*pb.Range {
	var out []*pb.Range
	for n := first; n <= last; n++ {
		out = append(out, &pb.Range{Start: &pb.Position{Line: n}, End: &pb.Position{Line: n}})
	}
	return out
}

// overGRPC sends an error through the encoding that the engine's errors come in.
func overGRPC(err error) error {
	return fmt.Errorf("failed to solve: %w", grpcerrors.FromGRPC(grpcerrors.ToGRPC(context.Background(), err)))
}

func stepError(dockerfile, text string, code uint32, first, last int32) error {
	err := error(&gatewayapi.ExitError{ExitCode: code, Err: errors.New(text)})
	src := &errdefs.Source{Info: &pb.SourceInfo{Filename: "Dockerfile", Data: []byte(dockerfile)}, Ranges: lines(first, last)}
	return overGRPC(errdefs.WrapVertex(errdefs.WithSource(err, src), "step"))
}

func TestExplain(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "Dockerfile")
	t.Chdir(filepath.Dir(dir))
	name := filepath.Join(filepath.Base(dir), "Dockerfile")
	rec := newRecorder(filepath.Join(dir, "logs"))
	defer rec.close()
	rec.observe(logged("step", "npm ERR! write: No space left on device\n"))
	rec.observe(logged("other", "something else\n"))
	b := &build{solve: &request.Solve{Dockerfile: file}, state: "/state"}

	err := b.explain(stepError("FROM x\nRUN npm ci\n", `process "/bin/sh -c npm ci" did not complete successfully: exit code: 1`, 1, 2, 2), rec, &display{mode: progressui.QuietMode})
	if got, want := err.Error(), name+":2: RUN npm ci: exit code 1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	var e *buildError
	if !errors.As(err, &e) {
		t.Fatal("no buildError")
	}
	if got := printed(t, e.log, 40, dir); got != "log of the step (all of it: DIR/logs/1.log):\n  npm ERR! write: No space left on device\n" {
		t.Errorf("log %q", got)
	}
	if len(e.Hints) != 1 || !strings.Contains(e.Hints[0], "state directory /state: make room with `optbuild prune`") {
		t.Errorf("hints %q", e.Hints)
	}

	err = b.explain(overGRPC(errors.New("failed to load cache key: it broke")), rec, &display{mode: progressui.QuietMode})
	if got, want := err.Error(), "it broke"; got != want || !errors.As(err, &e) || e.log != nil {
		t.Errorf("got %q with log %v, want %q without", got, e.log, want)
	}
}

func TestOutOfMemory(t *testing.T) {
	f := failureOf(stepError("FROM x\nRUN make\n", `process "/bin/sh -c make" did not complete successfully: cannot allocate memory`, 137, 2, 2))
	if !f.OutOfMemory || !f.Exited || f.ExitCode != 137 || f.First != 2 || f.Last != 2 {
		t.Errorf("got %+v", f)
	}
}

// TestContextFiles: the Dockerfile's own ignore file takes precedence.
func TestContextFiles(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := &request.Solve{ContextDir: dir, Dockerfile: filepath.Join(dir, "app.Dockerfile")}
	for _, step := range []struct {
		name string
		want diagnose.IgnoreFile
	}{
		{"unrelated", diagnose.IgnoreFile{}},
		{".dockerignore", diagnose.IgnoreFile{Name: ".dockerignore", Text: ".dockerignore"}},
		{"app.Dockerfile.dockerignore", diagnose.IgnoreFile{Name: "app.Dockerfile.dockerignore", Text: "app.Dockerfile.dockerignore"}},
	} {
		write(step.name, step.name)
		if got := contextFiles(s).Ignore; got != step.want {
			t.Errorf("with %s: %+v, want %+v", step.name, got, step.want)
		}
	}
}

func TestAnnotations(t *testing.T) {
	root := t.TempDir()
	t.Setenv("GITHUB_WORKSPACE", root)
	dockerfile := filepath.Join(root, "a,b", "Dockerfile")
	warning := client.VertexWarning{Short: []byte("StageNameCasing: Stage 'X' is 100% odd (line 1)"), Range: lines(1, 1)}
	twice := []client.VertexWarning{warning, warning, {Short: []byte("no rule")}}
	all := append(warningAnnotations(dockerfile, twice), lintAnnotations("", lint.LintResults{Warnings: []lint.Warning{
		{RuleName: "JSONArgs", Detail: "two\nlines", Location: &pb.Location{Ranges: lines(3, 4)}},
	}})...)
	all = append(all,
		errorAnnotation(&buildError{
			Diagnosis: &diagnose.Diagnosis{First: 2, Last: 4, Message: "RUN x: exit code 1", Hints: []string{"try y"}}, path: dockerfile,
		}),
		errorAnnotation(&buildError{Diagnosis: &diagnose.Diagnosis{Message: "it broke"}}),
	)
	var b bytes.Buffer
	t.Setenv("GITHUB_ACTIONS", "")
	annotate(&b, all...)
	if b.Len() > 0 {
		t.Errorf("outside of GitHub: %q", b.String())
	}
	t.Setenv("GITHUB_ACTIONS", "true")
	annotate(&b, all...)
	want := `::warning file=a%2Cb/Dockerfile,line=1,endLine=1,title=StageNameCasing::Stage 'X' is 100%25 odd
::warning file=a%2Cb/Dockerfile,title=Dockerfile::no rule
::warning title=JSONArgs::two%0Alines
::error file=a%2Cb/Dockerfile,line=2,endLine=4,title=build failed::RUN x: exit code 1%0Atry y
::error title=build failed::it broke
`
	if got := b.String(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestFormatWarnings(t *testing.T) {
	w := client.VertexWarning{
		Short: []byte("LegacyKeyValueFormat: use = (line 2)"), Detail: [][]byte{[]byte("because")}, URL: "https://x",
		SourceInfo: &pb.SourceInfo{Data: []byte("FROM x\nENV A 1\n")}, Range: lines(2, 2),
	}
	other := client.VertexWarning{Short: []byte("Other: odd")}
	for _, c := range []struct {
		all      []client.VertexWarning
		detailed bool
		want     string
	}{
		{nil, false, ""},
		{[]client.VertexWarning{w, w}, false, "\n 1 warning found (use -D to expand):\n - LegacyKeyValueFormat: use = (line 2)\n"},
		{
			[]client.VertexWarning{w, other}, true,
			"\n 2 warnings found:\n - LegacyKeyValueFormat: use = (line 2)\n   because\n   https://x\n  1 | FROM x\n> 2 | ENV A 1\n\n - Other: odd\n",
		},
	} {
		if got := formatWarnings(c.all, c.detailed); got != c.want {
			t.Errorf("got %q\nwant %q", got, c.want)
		}
	}
}

// TestDisplayDropsErrorLogs runs BuildKit's display: what it says of a failed step comes without the engine's words, and
// the step's log comes once.
func TestDisplayDropsErrorLogs(t *testing.T) {
	out, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	stderr := os.Stderr
	os.Stderr = out
	defer func() { os.Stderr = stderr }()
	d, err := newDisplay(progressui.PlainMode, newRecorder(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	started := completed("step", "")
	started.Vertexes[0].Started, started.Vertexes[0].Completed = started.Vertexes[0].Completed, nil
	started.Vertexes[0].Name = "RUN x"
	log := logged("step", "------\nsaid once\n")
	log.Logs[0].Timestamp = *started.Vertexes[0].Started
	failed := completed("step", `process "/bin/sh -c x" did not complete successfully: exit code: 1`)
	failed.Vertexes[0].Name = "RUN x"
	failed.Vertexes[0].Started = failed.Vertexes[0].Completed
	for _, s := range []*client.SolveStatus{started, log, failed} {
		d.statuses() <- s
	}
	close(d.statuses())
	d.wait()
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	want := "#1 RUN x\n#1 0.000 ------\n#1 0.000 said once\n#1 ERROR: exit code 1\n"
	if got := string(b); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
