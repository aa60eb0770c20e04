// Package fix makes of a Dockerfile the one that an expert would have written.
//
// In come a plan and facts; out comes the text that the compiler's passes make of it, laid out for people, with the remarks that say what was
// done. It is the pipeline of a build (package opt) with its text as the result: what a build does for itself each time is written down once, so
// that any `docker build` profits.
//
// Only what a pass has touched is laid out anew. Every comment of the user's stays, above the step that its own became a part of. The result is a
// fixed point: Run on it changes nothing, or Run reports an error.
package fix

import (
	"fmt"
	"slices"

	"github.com/optbuild/optbuild/frontend/opt"
	"github.com/optbuild/optbuild/frontend/plan"
)

// Result is a Dockerfile and what became of it.
type Result struct {
	Before, After string
	Remarks       []opt.Remark // lines are the user's
	Warnings      []string     // sentences, without final stop
}

// Passed are the remarks on what was done.
func (r *Result) Passed() []opt.Remark { return r.of(opt.Passed) }

// Missed are the remarks on what was refused.
func (r *Result) Missed() []opt.Remark { return r.of(opt.Missed) }

func (r *Result) of(k opt.Kind) (list []opt.Remark) {
	for _, m := range r.Remarks {
		if m.Kind == k {
			list = append(list, m)
		}
	}
	return list
}

// maxRounds bounds how often the passes run: one pass's rewrite may be another one's occasion.
const maxRounds = 8

// Run fixes a Dockerfile. Facts are asked for each text that comes up, beginning with p's own.
func Run(p *plan.Plan, facts func(*plan.Plan) (*plan.Facts, error), o opt.Options) (*Result, error) {
	o.Fix = true
	first := p
	text, lines := p.Text()
	r := &Result{Before: text}
	for range maxRounds {
		f, err := facts(p)
		if err != nil {
			return nil, err
		}
		res := opt.Run(p, f, o)
		if res.Err != nil {
			return nil, res.Err
		}
		done := len(r.Passed())
		r.add(res.Remarks, lines)
		laidOut := layOut(p, res.Plan)
		if plan.Check(p, laidOut, f) != nil {
			laidOut = res.Plan
		}
		after, madeLines := laidOut.Text()
		if after == text {
			r.After, r.Warnings = after, tooOld(first, p)
			slices.SortStableFunc(r.Remarks, func(a, b opt.Remark) int { return a.Lines.First - b.Lines.First })
			return r, nil
		}
		q, err := plan.Parse(p.Name, []byte(after))
		if err != nil {
			return nil, fmt.Errorf("parse the result: %w", err)
		}
		if o.Rewrites > 0 {
			if o.Rewrites -= len(r.Passed()) - done; o.Rewrites <= 0 {
				o.Rewrites = -1
			}
		}
		p, text, lines = q, after, through(madeLines, lines)
	}
	return nil, fmt.Errorf("the passes do not come to rest after %d rounds: %s", maxRounds, passNames(r.Passed()))
}

// add takes over the remarks of a round: what was done counts, what was refused is what the last round refused.
func (r *Result) add(remarks []opt.Remark, lines []plan.Lines) {
	r.Remarks = r.Passed()
	for _, m := range remarks {
		m.Lines = userLines(lines, m.Lines)
		r.Remarks = append(r.Remarks, m)
	}
}

// through composes line maps: those of a text made of another, and of that other's lines.
func through(made, lines []plan.Lines) []plan.Lines {
	out := make([]plan.Lines, len(made))
	for i, l := range made {
		out[i] = userLines(lines, l)
	}
	return out
}

func userLines(lines []plan.Lines, l plan.Lines) plan.Lines {
	var u plan.Lines
	for i := max(l.First, 1); i <= l.Last && i < len(lines); i++ {
		u = u.Union(lines[i])
	}
	return u
}

func passNames(remarks []opt.Remark) string {
	names := ""
	for i, m := range remarks {
		if i > 0 {
			names += ", "
		}
		names += m.Pass + "/" + m.Name
	}
	return names
}
