package diagnose

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", os.Getenv("UPDATE") != "", "write what comes out into the case files")

// TestExplain runs the cases in testdata. A case has the facts (one to a line), a Dockerfile, perhaps .dockerignore, files
// below context/ and below named/NAME/, and what the user is told.
func TestExplain(t *testing.T) {
	cases, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(cases) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			f, c, want := parseCase(t, a)
			got := format(Explain(f, c))
			if got == want {
				return
			}
			if *update {
				a.Files[len(a.Files)-1].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			t.Errorf("got:\n%s\nwant:\n%s", got, want)
		})
	}
}

func format(d *Diagnosis) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v\n%s", d, d.Excerpt)
	for _, h := range d.Hints {
		fmt.Fprintf(&b, "hint: %s\n", h)
	}
	return b.String()
}

func parseCase(t *testing.T, a *txtar.Archive) (f Failure, c Context, want string) {
	t.Helper()
	f.File = "Dockerfile"
	files := fstest.MapFS{}
	for _, file := range a.Files {
		switch name := file.Name; {
		case name == "failure":
			parseFacts(t, &f, string(file.Data))
			c.None = strings.Contains(string(file.Data), "\nno-context\n")
			c.NoAgent = strings.Contains(string(file.Data), "\nno-agent\n")
		case name == "Dockerfile":
			f.Source = file.Data
		case strings.HasSuffix(name, ".dockerignore"):
			c.Ignore = IgnoreFile{Name: name, Text: string(file.Data)}
		case strings.HasPrefix(name, "context/"):
			name = strings.TrimPrefix(name, "context/")
			if target, ok := strings.CutPrefix(string(file.Data), "link to "); ok {
				files[name] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte(strings.TrimSpace(target))}
				continue
			}
			files[name] = &fstest.MapFile{Data: file.Data}
		case strings.HasPrefix(name, "named/"):
			where, name, _ := strings.Cut(strings.TrimPrefix(name, "named/"), "/")
			if c.Named == nil {
				c.Named = map[string]fs.FS{}
			}
			if c.Named[where] == nil {
				c.Named[where] = fstest.MapFS{}
			}
			c.Named[where].(fstest.MapFS)[name] = &fstest.MapFile{Data: file.Data}
		case name == "want":
			want = string(file.Data)
		}
	}
	if len(files) > 0 {
		c.Files = files
	}
	return f, c, want
}

func parseFacts(t *testing.T, f *Failure, facts string) {
	t.Helper()
	for _, line := range strings.Split(strings.TrimSpace(facts), "\n") {
		key, value, _ := strings.Cut(line, " ")
		var err error
		switch key {
		case "text":
			f.Text = value
		case "lines":
			_, err = fmt.Sscan(value, &f.First, &f.Last)
		case "exit":
			f.Exited = true
			_, err = fmt.Sscan(value, &f.ExitCode)
		case "step":
			f.Step = value
		case "no-context", "no-agent":
		case "oom":
			f.OutOfMemory = true
		default:
			err = fmt.Errorf("unknown fact")
		}
		if err != nil {
			t.Fatalf("fact %q: %v", line, err)
		}
	}
}

func TestClean(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"failed to solve: failed to compute cache key: failed to load cache key: it broke", "it broke"},
		{`failed to solve: process "/bin/sh -c a && \"b\"" did not complete successfully: exit code: 3`, "exit code 3"},
		{"failed to solve: process \"/bin/sh -c set -e\nfalse\n\" did not complete successfully: cannot allocate memory", "cannot allocate memory"},
		{"failed to solve: rpc error: code = Unknown desc = failed to solve: mkdir /x: not a directory", "mkdir /x: not a directory"},
		{"push: rpc error: code = Unavailable desc = gone", "push: gone"},
		{
			"failed to solve: reg/app:1: failed to resolve source metadata for reg/app:1: reg/app:1: not found",
			"reg/app:1: not found",
		},
		{
			`failed to solve: biuld: failed to resolve source metadata for docker.io/library/biuld:latest: failed to do request: Head "https://r/v2/": no such host (did you mean build?)`,
			`docker.io/library/biuld:latest: Head "https://r/v2/": no such host (did you mean build?)`,
		},
		{`failed to process "${b:x}": unsupported modifier (:x) in substitution`, "unsupported modifier (:x) in substitution"},
	} {
		if got := Clean(c.in); got != c.want {
			t.Errorf("Clean(%q)\n got %q\nwant %q", c.in, got, c.want)
		}
	}
}

func TestExcludes(t *testing.T) {
	f := IgnoreFile{Text: "# comment\n*.md\n\n!README.md\n/dist\n!dist/keep\n**/*.log\ndist/keep/not\n"}
	for path, want := range map[string]rule{
		"a.md":            {2, "*.md"},
		"README.md":       {},
		"sub/a.md":        {},
		"dist/app.js":     {5, "/dist"},
		"dist/keep/x":     {},
		"dist/keep/not/x": {8, "dist/keep/not"},
		"a/b/c.log":       {7, "**/*.log"},
		"#":               {},
	} {
		if got, excluded := f.excludes(path); excluded != (want.line > 0) || excluded && got != want {
			t.Errorf("excludes(%q) = %v, %v; want %v", path, got, excluded, want)
		}
	}
}
