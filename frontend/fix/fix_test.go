package fix

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/tools/txtar"

	"github.com/optbuild/optbuild/frontend/opt"
	"github.com/optbuild/optbuild/frontend/plan"
)

func parse(t testing.TB, src string) *plan.Plan {
	t.Helper()
	p, err := plan.Parse("Dockerfile", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestLayOut: a step that a pass has made, and how people write it.
func TestLayOut(t *testing.T) {
	for _, c := range []struct{ name, before, made, want string }{
		{
			name:   "one short flag stays on the line",
			before: "FROM a\nRUN b\n",
			made:   "RUN --mount=type=cache,target=/c b",
			want:   "FROM a\nRUN --mount=type=cache,target=/c b\n",
		},
		{
			name:   "several flags have a line each",
			before: "FROM a\nRUN b && \\\n      c\n",
			made:   "RUN --mount=type=cache,target=/c --mount=type=cache,target=/d b && \\\n      c",
			want:   "FROM a\nRUN --mount=type=cache,target=/c \\\n      --mount=type=cache,target=/d \\\n      b && \\\n      c\n",
		},
		{
			name:   "the file's indentation",
			before: "FROM a\nRUN x \\\n\ty\nRUN b\n",
			made:   "RUN --mount=type=cache,target=/c --network=none b",
			want:   "FROM a\nRUN x \\\n\ty\nRUN --mount=type=cache,target=/c \\\n\t--network=none \\\n\tb\n",
		},
		{
			name:   "the user's own line break",
			before: "FROM a\nRUN \\\n  b\n",
			made:   "RUN --mount=type=cache,target=/c --network=none \\\n  b",
			want:   "FROM a\nRUN --mount=type=cache,target=/c \\\n  --network=none \\\n  b\n",
		},
		{
			name:   "another escape character",
			before: "# escape=`\nFROM a\nRUN b\n",
			made:   "RUN --mount=type=cache,target=/c --network=none b",
			want:   "# escape=`\nFROM a\nRUN --mount=type=cache,target=/c `\n    --network=none `\n    b\n",
		},
		{
			name:   "lines that end as the file's do",
			before: "FROM a\r\nRUN b\r\nRUN c\r\n",
			made:   "RUN --mount=type=cache,target=/c --network=none c",
			want:   "FROM a\r\nRUN b\r\nRUN --mount=type=cache,target=/c \\\r\n    --network=none \\\r\n    c\r\n",
		},
		{
			name:   "a heredoc is left alone",
			before: "FROM a\nRUN <<EOF\nb\nEOF\n",
			made:   "RUN --mount=type=cache,target=/c --network=none <<EOF\nb\nEOF",
			want:   "FROM a\nRUN --mount=type=cache,target=/c --network=none <<EOF\nb\nEOF\n",
		},
		{
			name:   "a comment between lines that the pass lost",
			before: "FROM a\n# above\nRUN b && \\\n  # inside\n  c\n",
			made:   "RUN b && c && d",
			want:   "FROM a\n# above\n# inside\nRUN b && c && d\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := parse(t, c.before)
			q := p.Clone()
			steps := q.Stages[0].Steps
			last := steps[len(steps)-1]
			s, err := q.NewStep(c.made, last)
			if err != nil {
				t.Fatal(err)
			}
			steps[len(steps)-1] = s
			if got, _ := layOut(p, q).Text(); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// TestComments: those of a step that is part of another one, or of none.
func TestComments(t *testing.T) {
	p := parse(t, "FROM a\n# one\n\n\nRUN b\n\n# two\n\nRUN c\n# three\nRUN d")
	q := p.Clone()
	steps := q.Stages[0].Steps
	s, err := q.NewStep("RUN b && c", steps[0], steps[1])
	if err != nil {
		t.Fatal(err)
	}
	q.Stages[0].Steps = []*plan.Step{s}
	got, _ := layOut(p, q).Text()
	if want := "FROM a\n# one\n\n# two\n\nRUN b && c\n# three\n"; got != want {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

// corpus are the Dockerfiles of the passes' cases and of the integration tests.
func corpus(t testing.TB) (list []string) {
	t.Helper()
	for _, pattern := range []string{"../opt/testdata/*/*.txtar", "testdata/*.txtar", "../lint/testdata/*/*.txtar"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if i := slices.IndexFunc(a.Files, func(f txtar.File) bool { return f.Name == "Dockerfile" }); i >= 0 {
				list = append(list, string(a.Files[i].Data))
			}
		}
	}
	files, _ := filepath.Glob("../../integration/testdata/*/Dockerfile*")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, string(b))
	}
	return list
}

// facts knows every base image and an empty context with the usual manifests.
func facts(p *plan.Plan) (*plan.Facts, error) {
	f := &plan.Facts{Build: ocispecs.Platform{OS: "linux", Architecture: "amd64"}, Images: map[string]plan.Image{}}
	for _, st := range p.Stages {
		if base, name, ok := p.Resolve(st, f); ok && base == nil {
			f.Images[name] = plan.Image{Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}}
		}
	}
	f.Context = &plan.Context{Complete: true, Ignore: true, Paths: map[string]plan.Path{".": {Exists: true, Mode: os.ModeDir | 0o755}}}
	for name, text := range map[string]string{
		"package.json": `{"name":"x","version":"1.0.0","dependencies":{"left-pad":"1.3.0"}}`, "package-lock.json": `{"name":"x","lockfileVersion":3,"packages":{}}`,
		"requirements.txt": "flask==3.0.0\n", "go.mod": "module x\n\ngo 1.22\n", "go.sum": "", "main.go": "package main\n", "src": "", "app.py": "",
	} {
		f.Context.Paths[name] = plan.Path{Exists: true, Mode: 0o644, Data: []byte(text), Sniffed: true}
	}
	return f, nil
}

// checkFix fixes a Dockerfile and checks what must hold of every result.
func checkFix(t *testing.T, src string) {
	p, err := plan.Parse("Dockerfile", []byte(src))
	if err != nil {
		return
	}
	for _, level := range []opt.Level{opt.Safe, opt.All} {
		o := opt.Options{Level: level}
		r, err := Run(p, facts, o)
		if err != nil {
			t.Fatalf("%s: %v\n%s", level, err, src)
		}
		q, err := plan.Parse("Dockerfile", []byte(r.After))
		if err != nil {
			t.Fatalf("%s: the result does not parse: %v\n%s", level, err, r.After)
		}
		again, err := Run(q, facts, o)
		if err != nil {
			t.Fatalf("%s: %v\n%s", level, err, r.After)
		}
		if again.After != r.After {
			t.Errorf("%s: no fixed point:\n--- before ---\n%s--- after ---\n%s--- again ---\n%s", level, src, r.After, again.After)
		}
		have := count(q)
		for c, n := range count(p) {
			if have[c] < n {
				t.Errorf("%s: comment %q is lost:\n--- before ---\n%s--- after ---\n%s", level, c, src, r.After)
			}
		}
		for _, m := range r.Remarks {
			if n := strings.Count(src, "\n") + 1; m.Lines.First < 1 || m.Lines.Last > n || m.Lines.First > m.Lines.Last {
				t.Errorf("%s: remark on lines %v of %d: %v", level, m.Lines, n, m)
			}
		}
	}
}

func count(p *plan.Plan) map[string]int {
	n := map[string]int{}
	each(p.Clone(), func(s *plan.Step) *plan.Step {
		for _, c := range comments(s) {
			n[c]++
		}
		return s
	})
	for _, c := range comments(&plan.Step{Lead: strings.Trim(p.Tail, "\x00")}) {
		n[c]++
	}
	return n
}

// TestCorpus: what holds of every result holds of the passes' own cases.
func TestCorpus(t *testing.T) {
	list := corpus(t)
	if len(list) < 5 {
		t.Fatalf("only %d Dockerfiles found", len(list))
	}
	for _, src := range list {
		checkFix(t, src)
	}
}

func FuzzFix(f *testing.F) {
	for _, src := range corpus(f) {
		f.Add(src)
	}
	for seed := range uint64(50) {
		f.Add(generate(seed))
	}
	f.Fuzz(checkFix)
}
