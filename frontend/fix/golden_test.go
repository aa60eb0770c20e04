package fix

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/optbuild/optbuild/frontend/opt"
	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/world"
)

// TestGolden runs the cases of testdata, a Dockerfile each. Their sections:
//
//	Dockerfile      what comes in
//	passes          the passes that run, so that a case is about few of them
//	context/<path>  files of the context
//	want            the Dockerfile that comes out, or the line "unchanged"
//	said            a line for each thing that was done, and the warnings
//
// Cases named not_* must come out unchanged. UPDATE=1 go test writes want and said.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { golden(t, file) })
	}
}

func golden(t *testing.T, file string) {
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	src := &world.Source{Context: t.TempDir(), Name: "Dockerfile"}
	o := opt.Options{Level: opt.All}
	want := map[string]string{}
	for _, f := range a.Files {
		name, inContext := strings.CutPrefix(f.Name, "context/")
		switch {
		case f.Name == "Dockerfile":
			src.Data = f.Data
		case f.Name == "passes":
			only := strings.Fields(string(f.Data))
			o.Disabled = slices.DeleteFunc(opt.Names(), func(n string) bool { return slices.Contains(only, n) })
		case f.Name == "want" || f.Name == "said":
			want[f.Name] = string(f.Data)
		case inContext:
			path := filepath.Join(src.Context, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, f.Data, 0o644); err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatalf("unknown section %s", f.Name)
		}
	}
	p, err := plan.Parse(src.Name, src.Data)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Run(p, func(p *plan.Plan) (*plan.Facts, error) {
		return world.Local(p, src, world.Options{Wants: func(p *plan.Plan, f *plan.Facts) []string { return opt.Wants(p, f, o) }})
	}, o)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{"want": r.After}
	if r.After == r.Before {
		got["want"] = "unchanged\n"
	} else if strings.HasPrefix(filepath.Base(file), "not_") {
		t.Errorf("rewritten, and must not be:\n%s", r.After)
	}
	for _, m := range r.Passed() {
		got["said"] += m.String() + "\n"
	}
	for _, w := range r.Warnings {
		got["said"] += fmt.Sprintf("warning: %s\n", w)
	}
	if os.Getenv("UPDATE") != "" {
		a.Files = slices.DeleteFunc(a.Files, func(f txtar.File) bool { return f.Name == "want" || f.Name == "said" })
		a.Files = append(a.Files, txtar.File{Name: "want", Data: []byte(got["want"])}, txtar.File{Name: "said", Data: []byte(got["said"])})
		if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, section := range []string{"want", "said"} {
		if got[section] != want[section] {
			t.Errorf("%s:\n--- got ---\n%s--- want ---\n%s", section, got[section], want[section])
		}
	}
}
