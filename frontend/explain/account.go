// Package explain tells people and tools what the compiler did to a Dockerfile, and what it refused.
//
// In comes an [Account]: the Dockerfile as it was written and as each pass left it, with the passes' remarks, and perhaps what steps
// took when they were last run. Out go texts: the Dockerfile with a gutter, diffs, a page, JSON lines, LLB, a graph. The renderers are pure
// functions; the same account gives the same bytes. An Account is plain data and survives JSON, so that a build's can travel from the
// engine to the command, which has no plans.
//
// A Dockerfile may come from anybody: texts for terminals show control characters instead of sending them, and the page escapes
// everything and allows itself no resource but its own script.
//
// The package runs nothing and reads no files.
package explain

import (
	"errors"
	"slices"
	"strings"

	"github.com/optbuild/optbuild/frontend/opt"
	"github.com/optbuild/optbuild/frontend/plan"
)

// Account is what is to be told of one compilation.
type Account struct {
	File       string // as the user knows it
	Level      opt.Level
	Disabled   []string  `json:",omitempty"`
	Passes     []Pass    // that ran, in order
	Versions   []Version // as the user wrote it, and then after each pass that changed it; at least one
	Remarks    []opt.Remark
	Images     map[string]plan.Image `json:",omitempty"` // base images that were known
	Remembered []string              `json:",omitempty"` // of these, those that an earlier build saw
	Assumed    []string              `json:",omitempty"` // of these, those whose configuration was taken from a table
	Unknown    []string              `json:",omitempty"` // of what nothing was known: image names, and "the build context"
	Aside      string                `json:",omitempty"` // why the optimiser stood aside, "" if it did not
	Broken     string                `json:",omitempty"` // the pass that broke the plan, "" if none did or it is not known
	Error      string                `json:",omitempty"` // what was wrong with the rewritten file; the build went on with the user's
	Measured   map[int]Measure       `json:",omitempty"` // by step ID, of the last version
	Layers     string                `json:",omitempty"` // what was done to the image's layers when it was last exported with them merged or stripped, "" if that is not known
}

// Pass is a row of opt's table.
type Pass struct {
	Name, Doc, Order string
	Keeps            opt.Keeps
}

// Version is the Dockerfile at one time.
type Version struct {
	Pass string `json:",omitempty"` // that made it, "" for the user's own
	Rows []Row
}

// Row is a step, or what stands before the first and after the last of them.
type Row struct {
	ID    int        `json:",omitempty"` // the step's, 0 for none
	Of    []int      `json:",omitempty"` // the user's steps that it was made of
	Lines plan.Lines // of the user's file
	Stage int        // from 0, in the user's order; -1 for none
	Lead  string     `json:",omitempty"` // comments and blank lines above it
	Text  string     // with its newline
}

// States of a step in a build.
const (
	Ran    = "ran"
	Cached = "cached"
)

// Measure is what one step took.
type Measure struct {
	State   string  // Ran, Cached, or "" where it was not part of a build
	Seconds float64 `json:",omitempty"` // the last time it ran
	Bytes   int64   `json:",omitempty"` // what it fetched, received or left behind, 0 if not known
}

// New makes the account of what opt.Run made of p. A pass that ran with Options.Fix is listed as such.
func New(p *plan.Plan, f *plan.Facts, o opt.Options, r opt.Result) *Account {
	a := &Account{File: p.Name, Level: o.Level, Disabled: o.Disabled, Images: f.Images, Remarks: slices.Clone(r.Remarks)}
	if a.Level == "" {
		a.Level = opt.Safe
	}
	for _, pass := range opt.Passes {
		if a.Level == opt.Off || slices.Contains(o.Disabled, pass.Name) || pass.Fix && !o.Fix {
			continue
		}
		a.Passes = append(a.Passes, Pass{pass.Name, pass.Doc, pass.Order, pass.Keeps})
	}
	a.Versions = append(a.Versions, version("", p))
	for _, s := range r.After {
		a.Versions = append(a.Versions, version(s.Pass, s.Plan))
	}
	var broken *opt.BrokenError
	if errors.As(r.Err, &broken) {
		a.Broken, a.Error = broken.Pass, broken.Err.Error()
	}
	a.facts(p, f)
	return a
}

func version(pass string, p *plan.Plan) Version {
	v := Version{Pass: pass}
	if p.Head != "" {
		v.Rows = append(v.Rows, Row{Text: p.Head, Lines: plan.Lines{First: 1, Last: strings.Count(p.Head, "\n")}, Stage: -1})
	}
	add := func(s *plan.Step, stage int) {
		v.Rows = append(v.Rows, Row{s.ID, s.Of, s.Lines, stage, s.Lead, s.Text + "\n"})
	}
	for _, s := range p.Args {
		add(s, -1)
	}
	for _, st := range p.Stages {
		add(st.From, st.Index)
		for _, s := range st.Steps {
			add(s, st.Index)
		}
	}
	text, _ := p.Text()
	size := 0
	for _, r := range v.Rows {
		size += len(r.Lead) + len(r.Text)
	}
	if n := len(v.Rows); size <= len(text) {
		if tail := text[size:]; tail != "" {
			v.Rows = append(v.Rows, Row{Text: tail, Stage: -1})
		}
	} else { // the last instruction ends without a newline
		v.Rows[n-1].Text = strings.TrimSuffix(v.Rows[n-1].Text, "\n")
	}
	return v
}

// facts lists what the passes had to take for granted or do without.
func (a *Account) facts(p *plan.Plan, f *plan.Facts) {
	for _, st := range p.Stages {
		base, name, ok := p.Resolve(st, f)
		img, known := f.Images[name]
		switch {
		case !ok:
			a.Unknown = append(a.Unknown, "FROM "+st.Def.BaseName)
		case base != nil || name == "scratch" || f.Replaced(name) || f.Replaced(st.Def.Name):
		case !known:
			a.Unknown = append(a.Unknown, name)
		case img.Assumed:
			a.Assumed = append(a.Assumed, name)
		case img.Remembered:
			a.Remembered = append(a.Remembered, name)
		}
	}
	for _, list := range []*[]string{&a.Assumed, &a.Remembered, &a.Unknown} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	if f.Context == nil {
		a.Unknown = append(a.Unknown, "the build context")
	}
}

// FactsLine says in one line what was assumed and what was not known, "" if everything was known.
func (a *Account) FactsLine() string {
	var parts []string
	if len(a.Assumed) > 0 {
		parts = append(parts, "assumed to be the official image: "+strings.Join(a.Assumed, ", "))
	}
	if len(a.Remembered) > 0 {
		parts = append(parts, "as an earlier build saw it: "+strings.Join(a.Remembered, ", "))
	}
	if len(a.Unknown) > 0 {
		parts = append(parts, "not known: "+strings.Join(a.Unknown, ", "))
	}
	return strings.Join(parts, "; ")
}

// Text is the version as a Dockerfile.
func (v Version) Text() string {
	var b strings.Builder
	for _, r := range v.Rows {
		b.WriteString(r.Lead)
		b.WriteString(r.Text)
	}
	return b.String()
}

// Steps are the IDs of the steps in the lines of the text, from line 1; comments count as nobody's.
func (v Version) Steps() []int {
	steps := []int{0}
	for _, r := range v.Rows {
		for range strings.Count(r.Lead, "\n") {
			steps = append(steps, 0)
		}
		for range strings.Count(strings.TrimSuffix(r.Text, "\n"), "\n") + 1 {
			steps = append(steps, r.ID)
		}
	}
	return steps
}

// Last is the Dockerfile that is built.
func (a *Account) Last() Version { return a.Versions[len(a.Versions)-1] }

// Origins are the user's steps that a step stands for: those that it was made of, or itself.
func (r Row) Origins() []int {
	if r.Of != nil {
		return r.Of
	}
	if r.ID == 0 {
		return nil
	}
	return []int{r.ID}
}

// row finds a step of any version.
func (a *Account) row(id int) Row {
	for _, v := range a.Versions {
		for _, r := range v.Rows {
			if r.ID == id {
				return r
			}
		}
	}
	return Row{}
}

// SetFile names the file as its user knows it.
func (a *Account) SetFile(name string) {
	a.File = name
	for i := range a.Remarks {
		a.Remarks[i].File = name
	}
}

// SetMeasured adds what the steps of the last version took, by their IDs, also to the remarks: what the remark's steps took, or, if the first sets a
// value only, the steps below it in its stage, which run again when the value changes.
func (a *Account) SetMeasured(m map[int]Measure) {
	a.Measured = m
	last := a.Last()
	for i := range a.Remarks {
		r := &a.Remarks[i]
		r.Seconds = 0
		mine, about := a.row(r.Step), a.about(*r)
		for _, row := range last.Rows {
			below := mine.setsValue() && row.Stage == mine.Stage && row.Lines.First > r.Lines.Last
			if below || overlap(about, row.Origins()) {
				r.Seconds += m[row.ID].Seconds
			}
		}
	}
}

// about are the user's steps that a remark is about.
func (a *Account) about(r opt.Remark) []int {
	var ids []int
	for _, id := range append([]int{r.Step}, r.Also...) {
		ids = append(ids, a.row(id).Origins()...)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

func (r Row) setsValue() bool {
	word, _, _ := strings.Cut(strings.TrimSpace(r.Text), " ")
	return slices.Contains([]string{"ARG", "ENV", "LABEL"}, strings.ToUpper(word))
}

func overlap(a, b []int) bool {
	return slices.ContainsFunc(a, func(x int) bool { return slices.Contains(b, x) })
}

// Of are the remarks of one kind, the missed ones sorted by the seconds that their steps last took.
func (a *Account) Of(k opt.Kind) []opt.Remark {
	list := slices.DeleteFunc(slices.Clone(a.Remarks), func(r opt.Remark) bool { return r.Kind != k })
	if k == opt.Missed {
		slices.SortStableFunc(list, func(x, y opt.Remark) int {
			switch {
			case x.Seconds > y.Seconds:
				return -1
			case x.Seconds < y.Seconds:
				return 1
			}
			return 0
		})
	}
	return list
}
