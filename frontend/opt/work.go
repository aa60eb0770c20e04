package opt

import (
	"fmt"
	"runtime/debug"

	"github.com/optbuild/optbuild/frontend/plan"
)

// Work is a pass at work on one plan. A pass changes w.Plan only inside the Apply of a Change.
type Work struct {
	Plan    *plan.Plan
	Facts   *plan.Facts
	Options Options

	pass    Pass
	left    *int // rewrites that may still be done, negative: any number
	changed bool
	remarks []Remark
}

// Change is one rewrite: what it is, and how to do it.
type Change struct {
	Steps   []*plan.Step // the steps that it touches; remarks point at the first one
	Name    string       // stable, kebab-case: what was done ("mount-added")
	Message string       // a sentence for people
	Args    []Arg
	Keeps   Keeps    // zero: the pass's
	Residue []string // absolute paths below which the image no longer holds what it would hold
	Apply   func()
}

// Do makes a change, unless a pragma, the level or the limit of rewrites forbids it, and reports whether it did. It leaves a passed remark, or a
// missed one that says what forbade it.
func (w *Work) Do(c Change) bool {
	before := len(w.remarks)
	defer func() {
		if n := len(w.remarks); n > before { // the last one is about the change
			for _, s := range c.Steps[1:] {
				w.remarks[n-1].Also = append(w.remarks[n-1].Also, s.ID)
			}
		}
	}()
	if c.Keeps == 0 {
		c.Keeps = w.pass.Keeps
	}
	for _, s := range c.Steps {
		if s.Kept(w.pass.Name) {
			w.Missed(c.Steps[0], "kept", "a pragma keeps this line as it is", Arg{"would", c.Name})
			return false
		}
	}
	if c.Keeps == Observed && w.Options.Level != All {
		w.Missed(c.Steps[0], "level", c.Message+": only with --optimize=all", Arg{"would", c.Name})
		return false
	}
	if *w.left == 0 {
		return false
	}
	*w.left--
	c.Apply()
	w.changed = true
	r := w.remark(Passed, c.Steps[0], c.Name, c.Message, c.Args)
	for _, s := range c.Steps[1:] {
		r.Lines = r.Lines.Union(s.Lines)
	}
	r.Keeps, r.Residue = c.Keeps, c.Residue
	w.remarks = append(w.remarks, r)
	return true
}

// Missed says that a rewrite was considered and refused, and names the one fact that would have allowed it.
func (w *Work) Missed(s *plan.Step, name, message string, args ...Arg) {
	w.remarks = append(w.remarks, w.remark(Missed, s, name, message, args))
}

// Analysis says something that the user should know and that no pass changes.
func (w *Work) Analysis(s *plan.Step, name, message string, args ...Arg) {
	w.remarks = append(w.remarks, w.remark(Analysis, s, name, message, args))
}

// Warn is an Analysis that a build shows without being asked.
func (w *Work) Warn(s *plan.Step, name, message string, args ...Arg) {
	r := w.remark(Analysis, s, name, message, args)
	r.Warning = true
	w.remarks = append(w.remarks, r)
}

func (w *Work) remark(k Kind, s *plan.Step, name, message string, args []Arg) Remark {
	return Remark{Kind: k, Pass: w.pass.Name, Name: name, File: w.Plan.Name, Lines: s.Lines, Step: s.ID, Message: message, Args: args}
}

// run runs the pass; a panic is an error.
func (w *Work) run() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	w.pass.Run(w)
	return nil
}
