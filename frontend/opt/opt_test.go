package opt

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/tools/txtar"

	"github.com/optbuild/optbuild/frontend/plan"
)

// A case of testdata/<pass>/*.txtar runs one pass. Its sections:
//
//	Dockerfile      what comes in
//	facts           optional JSON of plan.Facts; without it every base image is known and the same on all platforms: it sets PATH and nothing else, and linux/amd64 is built
//	options         optional JSON of Options; without it the level is all; shared stages are checked unless it says otherwise
//	context/<path>  files of the context; with one of them, or a section "context", the whole context is known, without it nothing is. A path
//	                that ends in -> TARGET is a symlink; a section context/<path>:archive is a file that ADD would unpack
//	want            the Dockerfile that comes out, or the line "unchanged"
//	remarks         the remarks, a line each
//
// UPDATE=1 go test writes want and remarks. Cases named not_* must not rewrite anything.
func TestPasses(t *testing.T) {
	for _, p := range Passes {
		files, err := filepath.Glob("testdata/" + p.Name + "/*.txtar")
		if err != nil {
			t.Fatal(err)
		}
		if len(files) == 0 {
			t.Errorf("%s has no cases", p.Name)
		}
		for _, file := range files {
			t.Run(p.Name+"/"+strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { runCase(t, p, file) })
		}
	}
}

func runCase(t *testing.T, pass Pass, file string) {
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c := readCase(t, a)
	p, err := plan.Parse("Dockerfile", []byte(c.dockerfile))
	if err != nil {
		t.Fatal(err)
	}
	f := c.facts(p)
	res := run(p, f, c.options, []Pass{pass})
	if res.Err != nil {
		t.Fatal(res.Err)
	}
	got, _ := res.Plan.Text()
	if got == c.dockerfile {
		got = "unchanged\n"
	} else if strings.HasPrefix(filepath.Base(file), "not_") {
		t.Errorf("rewritten, and must not be:\n%s", got)
	}
	var remarks strings.Builder
	for _, r := range res.Remarks {
		fmt.Fprintln(&remarks, r)
	}
	for name, text := range map[string]string{"want": got, "remarks": remarks.String()} {
		c.compare(t, file, name, text)
	}
	if again := run(p, f, c.options, []Pass{pass}); fmt.Sprint(again.Remarks) != fmt.Sprint(res.Remarks) {
		t.Errorf("a second run says otherwise:\n%v\n%v", res.Remarks, again.Remarks)
	}
}

type testCase struct {
	archive    *txtar.Archive
	dockerfile string
	factsJSON  []byte
	options    Options
	context    *plan.Context
}

func readCase(t testing.TB, a *txtar.Archive) *testCase {
	t.Helper()
	c := &testCase{archive: a, options: Options{Level: All, Checked: true}}
	for _, f := range a.Files {
		switch {
		case f.Name == "Dockerfile":
			c.dockerfile = string(f.Data)
		case f.Name == "facts":
			c.factsJSON = f.Data
		case f.Name == "options":
			if err := json.Unmarshal(f.Data, &c.options); err != nil {
				t.Fatal(err)
			}
		case f.Name == "context" || strings.HasPrefix(f.Name, "context/"):
			c.addContext(f)
		case f.Name != "want" && f.Name != "remarks":
			t.Fatalf("unknown section %s", f.Name)
		}
	}
	return c
}

func (c *testCase) addContext(f txtar.File) {
	if c.context == nil {
		c.context = &plan.Context{Complete: true, Paths: map[string]plan.Path{".": {Exists: true, Mode: os.ModeDir | 0o755}}}
	}
	name := strings.TrimPrefix(strings.TrimPrefix(f.Name, "context"), "/")
	if name == "" {
		return
	}
	p := plan.Path{Exists: true, Mode: 0o644, Data: f.Data, Sniffed: true}
	name, target, link := strings.Cut(name, " -> ")
	if link {
		p = plan.Path{Exists: true, Mode: os.ModeSymlink | 0o777, Link: target}
	}
	name, p.Archive = strings.CutSuffix(name, ":archive")
	if name == ".dockerignore" {
		c.context.Ignore = true
	}
	c.context.Paths[name] = p
	for d := filepath.Dir(name); d != "."; d = filepath.Dir(d) {
		c.context.Paths[d] = plan.Path{Exists: true, Mode: os.ModeDir | 0o755}
	}
}

func (c *testCase) facts(p *plan.Plan) *plan.Facts {
	f := &plan.Facts{Build: ocispecs.Platform{OS: "linux", Architecture: "amd64"}}
	if c.factsJSON != nil {
		if err := json.Unmarshal(c.factsJSON, f); err != nil {
			panic(err)
		}
	}
	if f.Images == nil {
		f.Images = map[string]plan.Image{}
		for _, st := range p.Stages {
			if base, name, ok := p.Resolve(st, f); ok && base == nil {
				f.Images[name] = plan.Image{Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, Build: true}
			}
		}
	}
	f.Context = c.context
	return f
}

func (c *testCase) compare(t *testing.T, file, name, got string) {
	t.Helper()
	i := slices.IndexFunc(c.archive.Files, func(f txtar.File) bool { return f.Name == name })
	if os.Getenv("UPDATE") != "" {
		if i < 0 {
			c.archive.Files = append(c.archive.Files, txtar.File{Name: name})
			i = len(c.archive.Files) - 1
		}
		c.archive.Files[i].Data = []byte(got)
		slices.SortStableFunc(c.archive.Files, func(a, b txtar.File) int { return rank(a.Name) - rank(b.Name) })
		if err := os.WriteFile(file, txtar.Format(c.archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want := ""
	if i >= 0 {
		want = string(c.archive.Files[i].Data)
	} else {
		t.Errorf("no section %s", name)
	}
	if !bytes.Equal([]byte(got), []byte(want)) {
		t.Errorf("%s:\n--- got ---\n%s--- want ---\n%s", name, got, want)
	}
}

func rank(section string) int { return slices.Index([]string{"want", "remarks"}, section) }

// TestOrder: names are unique and well formed, and every row has its texts.
func TestOrder(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range Passes {
		if seen[p.Name] || p.Name != strings.ToLower(p.Name) || p.Doc == "" || p.Order == "" || p.Keeps == 0 || p.Run == nil {
			t.Errorf("incomplete or doubled row %+v", p)
		}
		seen[p.Name] = true
	}
}
