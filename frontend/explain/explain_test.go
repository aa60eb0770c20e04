package explain

import (
	"bytes"
	"encoding/json"
	"errors"
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

// A case of testdata is a Dockerfile, what some passes made of it and said (the section result; no real pass is involved), and what the
// renderers make of that: a section for each of gutter, steps, html, json, llb, dot that the case is about. UPDATE=1 go test writes these.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			a, p, f := account(t, archive)
			for i, s := range archive.Files {
				if s.Name == "Dockerfile" || s.Name == "result" {
					continue
				}
				got := render(t, s.Name, a, p, f)
				again := render(t, s.Name, travelled(t, a), p, f)
				if got != again {
					t.Errorf("%s of the same account, after a journey as JSON:\n%s\n--- and before ---\n%s", s.Name, again, got)
				}
				if os.Getenv("UPDATE") != "" {
					archive.Files[i].Data = []byte(got)
				} else if got != string(s.Data) {
					t.Errorf("%s:\n--- got ---\n%s--- want ---\n%s", s.Name, got, s.Data)
				}
			}
			if os.Getenv("UPDATE") != "" {
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func render(t *testing.T, name string, a *Account, p *plan.Plan, f *plan.Facts) string {
	t.Helper()
	var b bytes.Buffer
	var err error
	switch name {
	case "gutter":
		err = Gutter(&b, a, false)
	case "gutter-in-colour":
		err = Gutter(&b, a, true)
	case "steps":
		err = Steps(&b, a)
	case "json":
		err = JSON(&b, a)
	case "html":
		err = HTML(&b, a)
	case "llb", "dot":
		ops, lerr := Lower(t.Context(), a.Last().Text(), f)
		if lerr != nil {
			t.Fatal(lerr)
		}
		if name == "llb" {
			err = LLB(&b, ops)
		} else {
			err = Dot(&b, ops)
		}
	default:
		t.Fatalf("unknown section %s", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := b.String()
	if name != "html" {
		return strings.ReplaceAll(s, "\x1b", "^[")
	}
	s = strings.Replace(s, pageStyle, "(page.css)", 1)
	s = strings.Replace(s, pageScript, "(page.js)", 1)
	start := strings.Index(s, "default-src")
	return s[:start] + "(policy)" + s[start+strings.Index(s[start:], `"`):]
}

// travelled is the account as a build's command sees it.
func travelled(t *testing.T, a *Account) *Account {
	t.Helper()
	b, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	var c Account
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return &c
}

// caseResult is the section result.
type caseResult struct {
	Facts  plan.Facts
	Passes []struct {
		Pass
		Edits []struct { // in place of the first of these steps comes one with this text; the others go
			Of   []int
			Text string
		}
		Remarks []opt.Remark
	}
	Measured map[int]Measure
	Broken   string
}

func account(t *testing.T, archive *txtar.Archive) (*Account, *plan.Plan, *plan.Facts) {
	t.Helper()
	section := func(name string) []byte {
		for _, f := range archive.Files {
			if f.Name == name {
				return f.Data
			}
		}
		return nil
	}
	p, err := plan.Parse("Dockerfile", section("Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	var c caseResult
	if b := section("result"); b != nil {
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err := d.Decode(&c); err != nil {
			t.Fatal(err)
		}
	}
	if c.Facts.Build.OS == "" {
		c.Facts.Build = ocispecs.Platform{OS: "linux", Architecture: "amd64"}
	}
	res := opt.Result{Plan: p}
	var passes []Pass
	for _, pass := range c.Passes {
		passes = append(passes, pass.Pass)
		res.Remarks = append(res.Remarks, pass.Remarks...)
		if pass.Edits == nil {
			continue
		}
		res.Plan = res.Plan.Clone()
		for _, e := range pass.Edits {
			edit(t, res.Plan, e.Of, e.Text)
		}
		res.After = append(res.After, opt.Step{Pass: pass.Name, Plan: res.Plan})
	}
	if c.Broken != "" {
		res = opt.Result{Plan: p, Err: &opt.BrokenError{Pass: c.Broken, Err: errors.New("stage <b>x</b> is new")}}
	}
	for i := range res.Remarks {
		r := &res.Remarks[i]
		r.File = "Dockerfile"
		if r.Lines == (plan.Lines{}) {
			r.Lines = find(p, r.Step).Lines
		}
	}
	slices.SortStableFunc(res.Remarks, func(a, b opt.Remark) int { return a.Lines.First - b.Lines.First })
	a := New(p, &c.Facts, opt.Options{}, res)
	a.Passes = passes
	a.SetMeasured(c.Measured)
	return a, p, &c.Facts
}

func find(p *plan.Plan, id int) *plan.Step {
	for _, st := range p.Stages {
		for _, s := range append([]*plan.Step{st.From}, st.Steps...) {
			if s.ID == id {
				return s
			}
		}
	}
	return &plan.Step{}
}

func edit(t *testing.T, p *plan.Plan, of []int, text string) {
	t.Helper()
	var steps []*plan.Step
	for _, id := range of {
		steps = append(steps, find(p, id))
	}
	made, err := p.NewStep(text, steps...)
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range p.Stages {
		if i := slices.Index(st.Steps, steps[0]); i >= 0 {
			st.Steps[i] = made
		}
		st.Steps = slices.DeleteFunc(st.Steps, func(s *plan.Step) bool { return slices.Contains(steps, s) })
	}
}
