package world

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/optbuild/optbuild/frontend/plan"
)

// write makes a directory of txtar's files; a name that ends in "/" is a directory, "a -> b" a symlink.
func write(t testing.TB, archive string) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range txtar.Parse([]byte(archive)).Files {
		name, target, link := strings.Cut(f.Name, " -> ")
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch {
		case link:
			err = os.Symlink(target, file)
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(file, 0o755)
		default:
			err = os.WriteFile(file, f.Data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func local(t testing.TB, dir, file string, o Options) *plan.Facts {
	t.Helper()
	s, err := Open(dir, file, strings.NewReader("FROM scratch\n"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.Parse(s.Name, s.Data)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Local(p, s, o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// listing prints what is known of a context.
func listing(c *plan.Context) string {
	var lines []string
	for name, p := range c.Paths {
		line := fmt.Sprintf("%s %s", p.Mode.Type()|p.Mode&0o111, name)
		if p.Link != "" {
			line += " -> " + p.Link
		}
		if p.Data != nil {
			line += fmt.Sprintf(" %q", p.Data)
		}
		if p.Sniffed {
			line += fmt.Sprintf(" archive=%v", p.Archive)
		}
		lines = append(lines, line+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func TestContext(t *testing.T) {
	dir := write(t, `
-- Dockerfile --
FROM scratch
-- .dockerignore --
# a comment
node_modules
**/*.log
!keep.log
/docs/*
!docs/README.md
-- a.log --
-- keep.log --
-- docs/README.md --
-- docs/other.md --
-- node_modules/x/package.json --
{}
-- package.json --
{"name":"x"}
-- src/main.go --
-- src/deep/b.log --
-- empty/ --
-- link -> src/main.go --
`)
	f := local(t, dir, "", Options{Wants: func(*plan.Plan, *plan.Facts) []string { return []string{"src/main.go", "/keep.*", "absent"} }})
	want := `---------- .dockerignore
---------- Dockerfile
---------- docs/README.md
---------- keep.log "" archive=false
---------- package.json "{\"name\":\"x\"}\n"
---------- src/main.go "" archive=false
L--x--x--x link -> src/main.go
d--x--x--x .
d--x--x--x docs
d--x--x--x empty
d--x--x--x src
d--x--x--x src/deep
`
	if got := listing(f.Context); got != want || !f.Context.Complete || !f.Context.Ignore {
		t.Errorf("complete=%v ignore=%v, got\n%swant\n%s", f.Context.Complete, f.Context.Ignore, got, want)
	}
	if p, known := f.Context.Lookup("docs/other.md"); p.Exists || !known {
		t.Errorf("an ignored file: %+v %v", p, known)
	}
}

// TestOwnIgnoreFile: <Dockerfile>.dockerignore counts instead of the context's.
func TestOwnIgnoreFile(t *testing.T) {
	dir := write(t, `
-- build/Dockerfile --
FROM scratch
-- build/Dockerfile.dockerignore --
b
-- .dockerignore --
a
-- a --
-- b --
`)
	f := local(t, dir, filepath.Join(dir, "build/Dockerfile"), Options{})
	if a, b := f.Context.Paths["a"].Exists, f.Context.Paths["b"].Exists; !a || b {
		t.Errorf("a %v, b %v", a, b)
	}
	f = local(t, dir, "-", Options{})
	if a, b := f.Context.Paths["a"].Exists, f.Context.Paths["b"].Exists; a || !b {
		t.Errorf("from standard input: a %v, b %v", a, b)
	}
}

func TestArchive(t *testing.T) {
	var plain bytes.Buffer
	w := tar.NewWriter(&plain)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "x", Mode: 0o644}), w.Close()); err != nil {
		t.Fatal(err)
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(plain.Bytes()); err != nil {
		t.Fatal(err)
	}
	z.Close()
	dir := write(t, "-- Dockerfile --\nFROM scratch\n-- c.tar --\nnot one\n-- d.tar -> a --\n")
	for name, b := range map[string][]byte{"a": plain.Bytes(), "b.txt": zipped.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f := local(t, dir, "", Options{Wants: func(*plan.Plan, *plan.Facts) []string { return []string{"*"} }})
	for name, want := range map[string]bool{"a": true, "b.txt": true, "c.tar": false, "Dockerfile": false} {
		if p := f.Context.Paths[name]; p.Archive != want || !p.Sniffed {
			t.Errorf("%s: archive %v, sniffed %v", name, p.Archive, p.Sniffed)
		}
	}
}

// TestUnreadable: a directory that can't be read makes the listing incomplete, not the command fail.
func TestUnreadable(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root reads everything")
	}
	dir := write(t, "-- Dockerfile --\nFROM scratch\n-- a/b --\n-- c --\n")
	if err := os.Chmod(filepath.Join(dir, "a"), 0); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(filepath.Join(dir, "a"), 0o755)
	f := local(t, dir, "", Options{})
	if !f.Context.Paths["c"].Exists || f.Context.Complete {
		t.Errorf("got %v, complete %v", listing(f.Context), f.Context.Complete)
	}
}

// TestTooMany: a context without end is listed in part, and said to be.
func TestTooMany(t *testing.T) {
	tr := &tree{root: write(t, "-- a --\n-- b --\n-- c --\n")}
	full, err := listUpTo(tr.root, nil, 2)
	if err != nil || full.complete || len(full.paths) != 2 {
		t.Errorf("got %v, %v", full, err)
	}
	all, err := listUpTo(tr.root, nil, 4)
	if err != nil || !all.complete || len(all.paths) != 4 {
		t.Errorf("got %v, %v", all, err)
	}
}

func TestOpen(t *testing.T) {
	dir := write(t, "-- dockerfile --\nFROM a\n-- b/Dockerfile --\nFROM b\n")
	s, err := Open(dir, "", nil)
	if err != nil || string(s.Data) != "FROM a\n" || s.Path != filepath.Join(dir, "dockerfile") {
		t.Errorf("got %+v, %v", s, err)
	}
	if _, err := Open(dir, filepath.Join(dir, "b", "Containerfile"), nil); !errors.Is(err, ErrNoDockerfile) {
		t.Errorf("got %v", err)
	}
	if _, err := Open(filepath.Join(dir, "dockerfile"), "", nil); !errors.Is(err, ErrContext) {
		t.Errorf("got %v", err)
	}
	if _, err := Open(filepath.Join(dir, "nowhere"), "", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestOfficial(t *testing.T) {
	for name, want := range map[string]string{
		"debian:12-slim":                                     "user= dir= PATH=" + defaultPath,
		"docker.io/library/debian":                           "user= dir= PATH=" + defaultPath,
		"public.ecr.aws/docker/library/alpine:3.20":          "user= dir= PATH=" + defaultPath,
		"golang:1.25-alpine":                                 "user= dir=/go PATH=/go/bin:/usr/local/go/bin:" + defaultPath + " GOLANG_VERSION GOTOOLCHAIN GOPATH=/go",
		"php:8.3-fpm-alpine":                                 "user= dir=/var/www/html " + strings.Join(strings.Fields(phpEnv), " "),
		"php:8.3-cli":                                        "user= dir= " + strings.Join(strings.Fields(phpEnv), " "),
		"gcr.io/distroless/static-debian12:nonroot":          "user=65532 dir=/home/nonroot PATH=" + defaultPath + " SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
		"gcr.io/distroless/static-debian12":                  "user=0 dir=/ PATH=" + defaultPath + " SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
		"mcr.microsoft.com/dotnet/aspnet:8.0-noble-chiseled": "user=1654",
		"mcr.microsoft.com/dotnet/aspnet:7.0-jammy-chiseled": "unknown",
		"node:6-onbuild":                                     "unknown",
		"python:3-windowsservercore":                         "unknown",
		"example.com/node:20":                                "unknown",
		"someone/python":                                     "unknown",
		"$BASE":                                              "unknown",
		"gcr.io/distroless/static@sha256:" + strings.Repeat("a", 64): "unknown",
		"debian@sha256:" + strings.Repeat("a", 64):                   "user= dir= PATH=" + defaultPath,
	} {
		got := "unknown"
		if img, ok := Official(name); ok {
			got = fmt.Sprintf("user=%s dir=%s %s", img.User, img.WorkingDir, strings.Join(img.Env, " "))
			if !img.Assumed {
				t.Errorf("%s is not marked as assumed", name)
			}
		}
		if got != want && !(want == "user=1654" && strings.HasPrefix(got, want+" ")) {
			t.Errorf("%s: got %s\nwant %s", name, got, want)
		}
	}
	if !Demotes("postgres:16") || Demotes("node") {
		t.Error("which images change their user is wrong")
	}
}

// TestUnknownValue: of a variable that an image sets to what differs between its tags, only the name is known.
func TestUnknownValue(t *testing.T) {
	dir := write(t, "-- Dockerfile --\nARG V=20\nFROM node:$V\nRUN x\n")
	s, err := Open(dir, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.Parse(s.Name, s.Data)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Local(p, s, Options{BuildArgs: map[string]string{"V": "22"}})
	if err != nil {
		t.Fatal(err)
	}
	state := p.Flow(p.Stages[0], f)[0]
	if _, set, known := state.Lookup("NODE_VERSION"); !set || known {
		t.Errorf("NODE_VERSION: set %v, known %v", set, known)
	}
	if v, set, known := state.Lookup("PATH"); v.Value != defaultPath || !set || !known {
		t.Errorf("PATH: %+v, set %v, known %v", v, set, known)
	}
	if _, set, known := state.Lookup("GOPATH"); set || !known {
		t.Errorf("GOPATH: set %v, known %v", set, known)
	}
}

// BenchmarkLocal lists 10,000 files.
func BenchmarkLocal(b *testing.B) {
	dir := write(b, "-- Dockerfile --\nFROM scratch\n-- .dockerignore --\n.git\n**/*.log\nnode_modules\n!keep\n")
	for i := range 100 {
		d := filepath.Join(dir, fmt.Sprintf("d%d", i))
		if err := os.Mkdir(d, 0o755); err != nil {
			b.Fatal(err)
		}
		for j := range 100 {
			if err := os.WriteFile(filepath.Join(d, fmt.Sprintf("f%d", j)), nil, 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
	for b.Loop() {
		local(b, dir, "", Options{})
	}
}
