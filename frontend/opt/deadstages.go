package opt

import (
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

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
		if st.From.Kept("dead-stages") {
			roots = append(roots, st)
		}
	}
	for _, st := range roots {
		if what, s := reach(w, st, live); s != nil {
			w.Missed(s, "unknown-reference", "cannot tell which stages are needed: "+what)
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

func (w *Work) remove(st *plan.Stage) {
	for i, s := range w.Plan.Stages {
		if s == st {
			w.Plan.Stages = append(w.Plan.Stages[:i], w.Plan.Stages[i+1:]...)
			return
		}
	}
}

// reach marks what st needs. If it meets a reference that it cannot follow it returns why and the step.
func reach(w *Work, st *plan.Stage, live map[*plan.Stage]bool) (string, *plan.Step) {
	if live[st] {
		return "", nil
	}
	live[st] = true
	base, _, ok := w.Plan.Resolve(st, w.Facts)
	if !ok {
		return "FROM " + st.Def.BaseName + " depends on a value that is not known", st.From
	}
	if base != nil {
		if what, s := reach(w, base, live); s != nil {
			return what, s
		}
	}
	for _, s := range st.Steps {
		refs := references(s.Cmd)
		if c, ok := s.Cmd.(*instructions.OnbuildCommand); ok && strings.Contains(strings.ToLower(c.Expression), "from=") {
			return "ONBUILD may refer to any stage", s
		}
		for _, name := range refs {
			if strings.Contains(name, "$") {
				return name + " depends on a variable", s
			}
			if dep := w.Plan.Stage(name); dep != nil {
				if what, s := reach(w, dep, live); s != nil {
					return what, s
				}
			}
		}
	}
	return "", nil
}

// references are the stages or images that a step copies or mounts from.
func references(c instructions.Command) []string {
	switch c := c.(type) {
	case *instructions.CopyCommand:
		if c.From != "" {
			return []string{c.From}
		}
	case *instructions.RunCommand:
		var refs []string
		for _, m := range instructions.GetMounts(c) {
			if m.From != "" {
				refs = append(refs, m.From)
			}
		}
		return refs
	}
	return nil
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
		for _, name := range references(s.Cmd) {
			if _, err := strconv.Atoi(name); err == nil {
				return true
			}
		}
	}
	return false
}
