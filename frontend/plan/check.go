package plan

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// Check is what every plan that a pass made of p must keep, whatever the pass: the plan prints as a Dockerfile that parses to itself, its
// stages and the names that refer to them resolve, its user's steps appear at most once, and the target's image config comes out the same.
func Check(p, q *Plan, f *Facts) error {
	text, lines := q.Text()
	again, err := Parse(q.Name, []byte(text))
	if err != nil {
		return fmt.Errorf("plan does not parse: %w", err)
	}
	if n := len(splitLines(text)); len(lines) != n+1 {
		return fmt.Errorf("line map has %d lines, text has %d", len(lines)-1, n)
	}
	if again.Escape != p.Escape {
		return fmt.Errorf("escape character became %q", again.Escape)
	}
	for _, name := range []string{"syntax", "check"} { // a comment at the top is a directive
		_, was, _, _ := parser.ParseDirective(name, p.Source)
		if _, is, _, _ := parser.ParseDirective(name, []byte(text)); is != was {
			return fmt.Errorf("directive %s=%s became %q", name, was, is)
		}
	}
	if err := sameShape(q, again); err != nil {
		return err
	}
	if err := resolves(p, q, f); err != nil {
		return err
	}
	return sameConfig(p, q, f)
}

func sameShape(p, q *Plan) error {
	if len(p.Stages) != len(q.Stages) || len(p.Args) != len(q.Args) {
		return fmt.Errorf("plan prints as %d stages and %d arguments, has %d and %d", len(q.Stages), len(q.Args), len(p.Stages), len(p.Args))
	}
	for i, st := range p.Stages {
		if len(st.Steps) != len(q.Stages[i].Steps) {
			return fmt.Errorf("stage %s prints as %d steps, has %d", st.Name(), len(q.Stages[i].Steps), len(st.Steps))
		}
		for j, s := range st.Steps {
			if t := q.Stages[i].Steps[j]; s.Text != t.Text || fmt.Sprintf("%T", s.Cmd) != fmt.Sprintf("%T", t.Cmd) {
				return fmt.Errorf("stage %s: step %q prints as %q", st.Name(), s.Text, t.Text)
			}
		}
	}
	return nil
}

// resolves: what q's stages refer to is, stage by stage, what p's referred to.
func resolves(p, q *Plan, f *Facts) error {
	if len(q.Stages) == 0 {
		return fmt.Errorf("no stage is left")
	}
	want := p.Target(f)
	if got := q.Target(f); want != nil && (got == nil || got.Index != want.Index) {
		return fmt.Errorf("the target is no longer stage %s", want.Name())
	}
	old := map[int]*Stage{}
	for _, st := range p.Stages {
		old[st.Index] = st
	}
	for _, st := range q.Stages {
		o := old[st.Index]
		if o == nil {
			return fmt.Errorf("stage %s is new", st.Name())
		}
		ob, on, _ := p.Resolve(o, f)
		nb, nn, _ := q.Resolve(st, f)
		if on != nn || (ob == nil) != (nb == nil) || ob != nil && ob.Index != nb.Index {
			return fmt.Errorf("stage %s builds on another base", st.Name())
		}
		for _, s := range st.Steps {
			c, ok := s.Cmd.(*instructions.CopyCommand)
			if !ok || c.From == "" {
				continue
			}
			if n, err := strconv.Atoi(c.From); err == nil && n >= slices.Index(q.Stages, st) {
				return fmt.Errorf("stage %s: COPY --from=%d has no stage", st.Name(), n)
			}
		}
	}
	return nil
}

// sameConfig compares what the target's metadata instructions add up to.
func sameConfig(p, q *Plan, f *Facts) error {
	pt, qt := p.Target(f), q.Target(f)
	if pt == nil || qt == nil {
		return nil
	}
	a, b := p.config(pt, f), q.config(qt, f)
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Errorf("image config: %s became %s", a[i], b[i])
		}
	}
	if len(a) != len(b) {
		return fmt.Errorf("image config has %d entries instead of %d", len(b), len(a))
	}
	return nil
}

// config lists what the stage's image config comes from, in an order that does not depend on that of unrelated instructions.
func (p *Plan) config(st *Stage, f *Facts) []string {
	states := p.Flow(st, f)
	end := states[len(states)-1]
	out := []string{fmt.Sprintf("user=%q dir=%q shell=%q", end.User, end.Dir, end.Shell)}
	for _, v := range end.Config {
		out = append(out, fmt.Sprintf("env %s=%q known=%v", v.Name, v.Value, v.Known))
	}
	last, labels := map[string]string{}, map[string]string{}
	var sets []string
	p.walk(st, f, func(s *Step, at *State) {
		switch c := s.Cmd.(type) {
		case *instructions.LabelCommand:
			for _, kv := range c.Labels {
				k, _ := at.Expand(kv.Key)
				v, ok := at.Expand(kv.Value)
				labels[k] = fmt.Sprintf("label %s=%q known=%v", k, v, ok)
			}
		case *instructions.ExposeCommand, *instructions.VolumeCommand:
			text, ok := at.Expand(s.Text)
			sets = append(sets, fmt.Sprintf("%q known=%v", text, ok))
		case *instructions.OnbuildCommand:
			sets = append(sets, fmt.Sprintf("%q", s.Text))
		case *instructions.StopSignalCommand, *instructions.MaintainerCommand:
			text, _ := at.Expand(s.Text)
			last[s.Cmd.Name()] = text
		case *instructions.CmdCommand, *instructions.EntrypointCommand, *instructions.HealthCheckCommand:
			last[s.Cmd.Name()] = fmt.Sprintf("%q shell=%q", s.Text, at.Shell)
		}
	})
	for _, m := range []map[string]string{labels, last} {
		for k, v := range m {
			sets = append(sets, k+" "+v)
		}
	}
	slices.Sort(sets)
	return append(out, sets...)
}

// walk visits the steps of the stage and, before them, of the stages that it builds on.
func (p *Plan) walk(st *Stage, f *Facts, visit func(*Step, *State)) {
	if base, _, _ := p.Resolve(st, f); base != nil {
		p.walk(base, f, visit)
	}
	states := p.Flow(st, f)
	for i, s := range st.Steps {
		visit(s, &states[i])
	}
}
