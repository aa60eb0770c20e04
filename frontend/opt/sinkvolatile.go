package opt

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/script"
)

// sinkVolatile moves an ARG or ENV whose value changes from build to build below the RUNs that cannot read it. BuildKit puts all
// variables into the environment of each RUN below, and so into the RUN's cache key. A LABEL is in no key, nor are variables in that of a
// COPY, ADD or WORKDIR; but a LABEL or ENV that reads the variable has to come along.
//
// Before: each commit installs anew.
//
//	ARG GIT_SHA
//	LABEL revision=$GIT_SHA
//	RUN apt-get update && apt-get install -y curl
//	RUN go build -ldflags "-X main.commit=$GIT_SHA" .
//
// After:
//
//	RUN apt-get update && apt-get install -y curl
//	ARG GIT_SHA
//	LABEL revision=$GIT_SHA
//	RUN go build -ldflags "-X main.commit=$GIT_SHA" .
//
// What moves is a group: the variable, and what is below it and reads it among ARG, ENV and LABEL. It sinks until something reads it, or may
// read it, and is put below the last RUN that it passed: further down it would gain nothing. A RUN cannot read a variable if its
// text does not name it, if no command of it prints all variables, and if each program of it is one that reads only variables that are known
// (steady, known). Install scripts of packages count as reading no name that is clearly that of a build (GIT_SHA, BUILD_DATE); that they leave VERSION
// alone is likely, and no more than that: such a move keeps `observed`. What else stops a group: ENV must not change places with ENV
// (the image lists them in order), nor a LABEL with one of the same key, nor anything with what sets a variable that it reads.
//
// An ARG that nothing names stays, with a remark: the only use that it can have is to make the steps below it run again.
func sinkVolatile(w *Work) {
	for _, st := range w.Plan.Stages {
		tried := map[*plan.Step]bool{}
		for i := 0; i < len(st.Steps); {
			s := st.Steps[i]
			if tried[s] || !changing(w, st, i) {
				i++
				continue
			}
			tried[s] = true
			sink(w, st, s, tried)
		}
	}
}

// sink moves the group of one variable: first with the variables next to it, so that their order stays, then alone.
func sink(w *Work, st *plan.Stage, s *plan.Step, tried map[*plan.Step]bool) {
	if name := hiding(w, st, s); name != "" {
		if runBelow(st, s) {
			w.Missed(s, "set-twice", name+" has a value already, from above or from the base image; give one of them another name", Arg{"name", name})
		}
		return
	}
	var d *descent
	for _, together := range []bool{true, false} {
		d = newDescent(w, st, s, together)
		d.run()
		for m := range d.bound {
			tried[m] = true
		}
		if len(d.passed) == 0 {
			continue
		}
		if arg, ok := s.Cmd.(*instructions.ArgCommand); ok && !slices.ContainsFunc(seenBy(w, st, slices.Index(st.Steps, s)), func(t *plan.Step) bool { return mentions(t, declares(s)...) }) {
			w.Missed(s, "unread", "nothing below reads "+arg.Args[0].Key+"; if it is there to make the steps below run again it does its work, else leave it out", Arg{"name", arg.Args[0].Key})
			return
		}
		if !w.Do(d.change()) {
			return
		}
	}
	d.remark()
}

// hiding is a name that the step sets although it is set: moving it would change which value steps see.
func hiding(w *Work, st *plan.Stage, s *plan.Step) string {
	at := w.Plan.Flow(st, w.Facts)[slices.Index(st.Steps, s)]
	for _, name := range declares(s) {
		if _, set, _ := at.Lookup(name); set {
			return name
		}
	}
	return ""
}

func runBelow(st *plan.Stage, s *plan.Step) bool {
	return slices.ContainsFunc(st.Steps[slices.Index(st.Steps, s)+1:], func(t *plan.Step) bool { return isRun(t) })
}

func isRun(s *plan.Step) bool {
	_, ok := s.Cmd.(*instructions.RunCommand)
	return ok
}

// descent is one way down.
type descent struct {
	w        *Work
	st       *plan.Stage
	states   []plan.State
	together bool // other variables that change come along

	group  []*plan.Step        // what moves, in order
	bound  map[*plan.Step]bool // of the group: what reads the variable
	names  []string            // what the group sets
	passed []*plan.Step        // RUNs
	last   int                 // index of the last one
	moves  int                 // how many of the group stood above it
	keeps  Keeps

	stop      *plan.Step // what it did not pass; nil at the end of the stage
	name, why string     // of the remark, "" if there is nothing to say: stop reads the variable
}

func newDescent(w *Work, st *plan.Stage, s *plan.Step, together bool) *descent {
	return &descent{w: w, st: st, states: w.Plan.Flow(st, w.Facts), together: together, group: []*plan.Step{s}, bound: map[*plan.Step]bool{}, names: declares(s), keeps: Files}
}

func (d *descent) run() {
	for i := slices.Index(d.st.Steps, d.group[0]) + 1; i < len(d.st.Steps); i++ {
		s := d.st.Steps[i]
		if d.joins(s, i) {
			d.group = append(d.group, s)
			for _, name := range declares(s) {
				if leftAlone(name) {
					d.block(s, "known-variable", name+" reads it, which programs look at")
					return
				}
				d.names = append(d.names, name)
			}
			continue
		}
		if !d.passes(s, i) {
			d.stop = s
			return
		}
		if isRun(s) {
			d.passed, d.last, d.moves = append(d.passed, s), i, len(d.group)
		}
	}
}

func (d *descent) joins(s *plan.Step, i int) bool {
	switch s.Cmd.(type) {
	case *instructions.LabelCommand:
		return mentions(s, d.names...)
	case *instructions.ArgCommand, *instructions.EnvCommand:
		if mentions(s, d.names...) {
			d.bound[s] = true
			return true
		}
		return d.together && changing(d.w, d.st, i) && hiding(d.w, d.st, s) == ""
	}
	return false
}

// block notes why the way ends at s.
func (d *descent) block(s *plan.Step, name, why string) bool {
	d.stop, d.name, d.why = s, name, why
	return false
}

// passes reports whether the group can change places with step i, which is none of it.
func (d *descent) passes(s *plan.Step, i int) bool {
	switch c := s.Cmd.(type) {
	case *instructions.RunCommand:
		return d.passesRun(s, c, i)
	case *instructions.ArgCommand, *instructions.EnvCommand:
		_, env := c.(*instructions.EnvCommand)
		for _, m := range d.group {
			if _, ok := m.Cmd.(*instructions.EnvCommand); ok && env {
				return d.block(s, "env-order", "the image lists its environment in the order of the ENV lines; put ENV "+declares(m)[0]+" below ENV "+declares(s)[0])
			}
			if slices.ContainsFunc(declares(s), func(n string) bool { return strings.Contains(n, "$") || mentions(m, n) }) {
				return d.block(s, "reads-other", fmt.Sprintf("line %d reads, or may read, what it sets", m.Lines.First))
			}
		}
	case *instructions.LabelCommand:
		for _, kv := range c.Labels {
			if d.labelled(kv.Key) {
				return d.block(s, "label-order", "both lines set the same label")
			}
		}
	case *instructions.CmdCommand, *instructions.EntrypointCommand, *instructions.HealthCheckCommand, *instructions.OnbuildCommand, *instructions.ShellCommand,
		*instructions.MaintainerCommand: // nothing in them is expanded
	default:
		return !mentions(s, d.names...)
	}
	return true
}

// labelled reports whether a LABEL of the group sets the key, or may.
func (d *descent) labelled(key string) bool {
	for _, m := range d.group {
		if c, ok := m.Cmd.(*instructions.LabelCommand); ok {
			for _, kv := range c.Labels {
				if kv.Key == key || strings.ContainsAny(kv.Key+key, `$"'\`) {
					return true
				}
			}
		}
	}
	return false
}

func (d *descent) passesRun(s *plan.Step, c *instructions.RunCommand, i int) bool {
	if mentions(s, d.names...) {
		return false
	}
	sh, err := scriptOf(c, &d.states[i])
	if err != nil {
		return d.block(s, "unknown-shell", fmt.Sprintf("what it runs is not known (%v)", err))
	}
	if c.PrependShell && startsWithFile(&d.states[i]) {
		return d.block(s, "startup-file", "bash reads the file that BASH_ENV names, which may read any variable")
	}
	if what, all := readsAll(sh, s); all {
		return d.block(s, "may-read", what)
	}
	if slices.ContainsFunc(d.names, sh.MayRead) {
		return false
	}
	kind := named
	for _, c := range sh.Commands() {
		if len(c.Words) == 0 || c.Function {
			continue
		}
		if own := d.own(i, c.Name()); own != nil {
			return d.block(s, "own-program", fmt.Sprintf("%s may be a program of line %d, which may read any variable", c.Name(), own.Lines.First))
		}
		r := readingOf(c)
		if r == anything {
			return d.block(s, "may-read", fmt.Sprintf("%q may read any variable", programText(c)))
		}
		kind = min(kind, r)
	}
	if kind == scripts && !allDistinct(d.names) {
		if d.w.Options.Level != All {
			return d.block(s, "level", "install scripts of packages could read a name as common as that: only with --optimize=all")
		}
		d.keeps = Observed
	}
	return true
}

// own is a step above step i that copies a program of that name, or may do so.
func (d *descent) own(i int, name string) *plan.Step {
	steps := d.st.Steps[:i]
	for base, _, _ := d.w.Plan.Resolve(d.st, d.w.Facts); base != nil; base, _, _ = d.w.Plan.Resolve(base, d.w.Facts) {
		steps = slices.Concat(base.Steps, steps)
	}
	for _, s := range steps {
		var c instructions.SourcesAndDest
		switch cmd := s.Cmd.(type) {
		case *instructions.CopyCommand:
			c = cmd.SourcesAndDest
		case *instructions.AddCommand:
			c = cmd.SourcesAndDest
		default:
			continue
		}
		programs := strings.HasSuffix(path.Clean("/"+c.DestPath), "bin")
		if path.Base(c.DestPath) == name {
			return s
		}
		for _, src := range c.SourcePaths {
			file := path.Base(src)
			if file == name || programs && (!strings.Contains(strings.Trim(file, "."), ".") || hasWildcard(file)) { // a directory of programs
				return s
			}
		}
	}
	return nil
}

func allDistinct(names []string) bool {
	return !slices.ContainsFunc(names, func(n string) bool { return !distinct(n) })
}

// readsAll reports whether the text itself may read any variable, and why.
func readsAll(sh *script.Script, s *plan.Step) (string, bool) {
	for _, h := range sh.Hazards() {
		switch h.Kind {
		case script.Alias, script.Eval, script.Source, script.Trap:
			return fmt.Sprintf("%q may run anything", h.Text), true
		}
	}
	if _, all := sh.Reads(); all || strings.Contains(s.Text, "environ") || strings.Contains(s.Text, "/proc") {
		return "it may read all variables", true
	}
	return "", false
}

// programText is the program and, for those that have subcommands, its first operand.
func programText(c script.Command) string {
	if c.Name() == "" {
		return c.Words[0].Raw
	}
	if words := c.Operands(); len(words) > 0 && words[0].Literal && len(c.Name())+len(words[0].Value) < 40 && steady[c.Name()] != nil {
		return c.Name() + " " + words[0].Value
	}
	return c.Name()
}

// change is the rewrite.
func (d *descent) change() Change {
	group := d.group[:d.moves]
	return Change{
		Steps: group, Name: "moved", Keeps: d.keeps,
		Message: fmt.Sprintf("%s changes from build to build, and %s cannot read it: moved below", d.names[0], lines(d.passed)),
		Args:    []Arg{{"name", d.names[0]}, {"passed", strconv.Itoa(len(d.passed))}},
		Apply: func() {
			var steps []*plan.Step
			for i, s := range d.st.Steps {
				if !slices.Contains(group, s) {
					steps = append(steps, s)
				}
				if i == d.last {
					steps = append(steps, group...)
				}
			}
			d.st.Steps = steps
		},
	}
}

// lines names the lines of RUNs.
func lines(runs []*plan.Step) string {
	if len(runs) == 1 {
		return "the RUN of line " + strconv.Itoa(runs[0].Lines.First)
	}
	return fmt.Sprintf("the %d RUNs of lines %d to %d", len(runs), runs[0].Lines.First, runs[len(runs)-1].Lines.First)
}

// remark says what ended the way, if it was not a reader and the way could have been longer.
func (d *descent) remark() {
	if d.why == "" || !isRun(d.stop) && !runBelow(d.st, d.stop) {
		return
	}
	d.w.Missed(d.group[0], d.name, fmt.Sprintf("%s changes from build to build and stays above line %d: %s", d.names[0], d.stop.Lines.First, d.why),
		Arg{"name", d.names[0]}, Arg{"stop", strconv.Itoa(d.stop.Lines.First)})
}
