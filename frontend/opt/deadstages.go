package opt

import (
	"strconv"
	"strings"

	"github.com/optbuild/optbuild/frontend/plan"
)

// deadStages leaves out stages that the target does not refer to, directly or by way of others. BuildKit does not build them either; here it
// keeps passes and people from looking at them.
//
// Before, built without --target:
//
//	FROM golang AS lint
//	RUN golangci-lint run
//	FROM golang AS build
//	...
//
// After:
//
//	FROM golang AS build
//	...
func deadStages(w *Work) {
	target := w.Plan.Target(w.Facts)
	if target == nil || w.Options.Fix { // in a file that people keep, every stage is somebody's target
		return
	}
	live := map[*plan.Stage]bool{}
	roots := []*plan.Stage{target}
	for _, st := range w.Plan.Stages {
		if st.From.Kept("dead-stages") || st.Def.Name != "" && strings.EqualFold(st.Def.Name, w.epoch()) {
			roots = append(roots, st)
		}
	}
	for _, st := range roots {
		if u := w.Plan.Reach(st, w.Facts, live); u != nil {
			w.Missed(u.Step, "unknown-reference", "cannot tell which stages are needed: "+u.Why)
			return
		}
	}
	if dead := stagesNotIn(w.Plan, live); len(dead) > 0 {
		for _, st := range w.Plan.Stages {
			if live[st] && byNumber(st) { // numbers would mean other stages
				w.Missed(dead[0].From, "numbered-stage", "a stage is referred to by its number; name it with AS", Arg{"stage", st.Name()})
				return
			}
		}
		for _, st := range dead {
			w.Do(Change{
				Steps: []*plan.Step{st.From}, Name: "removed", Message: "stage " + st.Name() + " is not needed for this target", Args: []Arg{{"stage", st.Name()}},
				Apply: func() { w.remove(st) },
			})
		}
	}
}

// epoch is SOURCE_DATE_EPOCH, which may be the name of a stage whose sources' time counts.
func (w *Work) epoch() string {
	if v, given := w.Facts.BuildArgs["SOURCE_DATE_EPOCH"]; given {
		return v
	}
	v, _, _ := w.Plan.Global(w.Facts).Lookup("SOURCE_DATE_EPOCH")
	return v.Value
}

func (w *Work) remove(st *plan.Stage) {
	for i, s := range w.Plan.Stages {
		if s == st {
			w.Plan.Stages = append(w.Plan.Stages[:i], w.Plan.Stages[i+1:]...)
			if i == 0 && len(w.Plan.Args) == 0 && strings.Contains(w.Plan.Stages[0].From.Lead, "=") { // at the top it might be a directive
				w.Plan.Stages[0].From = w.Plan.Stages[0].From.WithLead("\n" + w.Plan.Stages[0].From.Lead)
			}
			return
		}
	}
}

func stagesNotIn(p *plan.Plan, live map[*plan.Stage]bool) (dead []*plan.Stage) {
	for _, st := range p.Stages {
		if !live[st] {
			dead = append(dead, st)
		}
	}
	return dead
}

// byNumber reports whether the stage refers to a stage by its number.
func byNumber(st *plan.Stage) bool {
	for _, s := range st.Steps {
		for _, name := range plan.References(s.Cmd) {
			if _, err := strconv.Atoi(name); err == nil {
				return true
			}
		}
	}
	return false
}
