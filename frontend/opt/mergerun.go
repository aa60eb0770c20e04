package opt

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/script"
)

// mergeRun makes one step of two RUNs where the cache loses nothing by it: the earlier one costs next to nothing when it runs again
// because the later one changed.
//
// Before:
//
//	RUN mkdir -p /app/data
//	RUN chown app:app /app/data
//	RUN make install
//
// After:
//
//	RUN mkdir -p /app/data && \
//	    chown app:app /app/data && \
//	    make install
//
// The update of a package index and the install that needs it become one step whatever they cost: a cached index that is older than the
// install's line names packages that mirrors no longer have.
//
// Two steps are two processes with file systems of their own: what would be seen of that, from hard links to /etc/hosts, forbids it.
func mergeRun(w *Work) {
	for _, st := range w.Plan.Stages {
		m := &merger{w: w, st: st, states: w.Plan.Flow(st, w.Facts), sides: map[*plan.Step]mergeSide{}, refusals: map[*plan.Step]*refusal{}, noted: map[*plan.Step]bool{}}
		for i := len(st.Steps) - 2; i >= 0; i-- {
			if _, ok := st.Steps[i].Cmd.(*instructions.RunCommand); ok {
				m.step(i)
			}
		}
		m.staleIndex()
		m.groups()
	}
}

type merger struct {
	w        *Work
	st       *plan.Stage
	states   []plan.State             // of st.Steps
	sides    map[*plan.Step]mergeSide // those that were read
	refusals map[*plan.Step]*refusal  // why a step is not one with the next RUN
	noted    map[*plan.Step]bool      // a remark was made that says enough
}

// step tries the RUN at i as the earlier one.
func (m *merger) step(i int) {
	side := m.side(i)
	if side.err != nil {
		m.refusals[side.step] = shellRefusal(side.err)
		return
	}
	e := asEarly(side.script, &m.states[i])
	if !e.cheap {
		return
	}
	if e.index != "" {
		m.index(i, side, e)
	} else if j := m.next(i); j > 0 {
		m.join(i, j, side, e, "merged", "running "+e.names+" again costs next to nothing: one step with the RUN")
	}
}

// index looks for the install that needs the index, wherever it is.
func (m *merger) index(i int, side mergeSide, e early) {
	a := m.st.Steps[i]
	var crossed *refusal
	for j := i + 1; j < len(m.st.Steps); j++ {
		s := m.st.Steps[j]
		if _, ok := s.Cmd.(*instructions.RunCommand); ok {
			needs, own := m.uses(j, e.index)
			if needs && crossed == nil {
				apart := m.next(i) != j
				r := m.join(i, j, side, e, "index-with-install", e.index+"'s index is updated in the step that installs from it, so that it is never too old: one step with the RUN")
				if r != nil && apart {
					m.noted[a] = true
					m.w.Missed(a, r.name, r.message)
				}
			} else if needs {
				m.noted[a], m.noted[s] = true, true
				m.w.Missed(a, crossed.name, crossed.message+" in line "+fmt.Sprint(s.Lines.First))
			}
			if needs || own {
				return
			}
		}
		if crossed == nil {
			crossed = m.crossing(s, e, side.script, len(instructions.GetMounts(side.cmd)) > 0)
		}
	}
}

// crossing is why a package index may not be updated behind the step instead of before it. Variables and the directory may be in the update's mounts.
func (m *merger) crossing(s *plan.Step, e early, update *script.Script, mounts bool) *refusal {
	line := fmt.Sprintf(" in line %d", s.Lines.First)
	names := func(list []string) *refusal {
		for _, name := range list {
			if mounts || strings.Contains(name, "$") || indexVariable(name) || update.MayRead(name) || !e.only {
				return &refusal{"environment-between", name + line + " may change what the update does"}
			}
		}
		return nil
	}
	switch c := s.Cmd.(type) {
	case *instructions.RunCommand:
		return &refusal{"intervening-run", "another RUN" + line + " comes between the update of the index and the install"}
	case *instructions.CopyCommand, *instructions.AddCommand:
		return &refusal{"intervening-copy", "a " + strings.ToUpper(s.Cmd.Name()) + line + " comes between the update of the index and the install"}
	case *instructions.UserCommand:
		return &refusal{"different-user", "USER" + line + " comes between the update of the index and the install"}
	case *instructions.ShellCommand:
		return &refusal{"different-shell", "SHELL" + line + " comes between the update of the index and the install"}
	case *instructions.WorkdirCommand:
		if mounts || !e.only || !path.IsAbs(c.Path) || strings.Contains(c.Path, "$") || within(c.Path, "/etc") || within(c.Path, "/var/lib") || within(c.Path, "/var/cache") {
			return &refusal{"environment-between", "WORKDIR" + line + " comes between the update of the index and the install"}
		}
	case *instructions.EnvCommand:
		var list []string
		for _, kv := range c.Env {
			list = append(list, kv.Key)
		}
		return names(list)
	case *instructions.ArgCommand:
		var list []string
		for _, kv := range c.Args {
			list = append(list, kv.Key)
		}
		return names(list)
	default:
		if !configOnly(s.Cmd) {
			return &refusal{"intervening-step", s.Cmd.Name() + line + " comes between the update of the index and the install"}
		}
	}
	return nil
}

// indexVariable reports whether a package manager looks at the variable when it updates its index.
func indexVariable(name string) bool {
	name = strings.ToUpper(name)
	for _, part := range []string{"PROXY", "APT", "APK", "DNF", "YUM", "RPM", "SSL", "CURL", "LD_", "LC_", "GNUPG"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return slices.Contains([]string{"PATH", "HOME", "TMPDIR", "LANG", "LANGUAGE", "USER"}, name)
}

// configOnly are instructions that no RUN can see. VOLUME is not one: docker's old builder threw away what a RUN below it wrote there.
func configOnly(c instructions.Command) bool {
	switch c.(type) {
	case *instructions.LabelCommand, *instructions.ExposeCommand, *instructions.CmdCommand, *instructions.EntrypointCommand, *instructions.StopSignalCommand,
		*instructions.HealthCheckCommand, *instructions.MaintainerCommand, *instructions.OnbuildCommand:
		return true
	}
	return false
}

// next is the RUN that follows i with nothing in between that it could see, -1 if there is none.
func (m *merger) next(i int) int {
	for j := i + 1; j < len(m.st.Steps); j++ {
		if _, ok := m.st.Steps[j].Cmd.(*instructions.RunCommand); ok {
			return j
		}
		if !configOnly(m.st.Steps[j].Cmd) {
			break
		}
	}
	return -1
}

// uses tells whether the RUN at j installs from an index that an earlier step made, and whether it updates the index itself.
func (m *merger) uses(j int, manager string) (needs, own bool) {
	side := m.side(j)
	if side.err != nil {
		return false, false
	}
	for _, c := range side.script.Commands() {
		name, updates, installs := indexUse(c)
		if name != manager {
			continue
		}
		needs, own = needs || installs && !own, own || updates
	}
	return needs, own
}

// side reads the RUN at i.
func (m *merger) side(i int) mergeSide {
	s := m.st.Steps[i]
	side, ok := m.sides[s]
	if !ok {
		side = mergeSide{step: s, cmd: s.Cmd.(*instructions.RunCommand)}
		side.script, side.err = scriptOf(side.cmd, &m.states[i])
		m.sides[s] = side
	}
	return side
}

// join makes one step of those at i and j, or notes why not.
func (m *merger) join(i, j int, a mergeSide, e early, name, message string) *refusal {
	b, at := m.side(j), &m.states[j]
	r := e.refused
	if b.err != nil {
		r = shellRefusal(b.err)
	}
	if r == nil {
		r = m.refused(&a, &b, at)
	}
	var merged mergeSide
	if r == nil {
		merged, r = joinRuns(m.w.Plan, a, b, at)
	}
	if r != nil {
		m.refusals[a.step] = r
		return r
	}
	done := m.w.Do(Change{
		Steps: []*plan.Step{a.step, b.step}, Name: name, Message: fmt.Sprintf("%s in line %d", message, b.step.Lines.First), Args: []Arg{{"with", fmt.Sprint(b.step.Lines.First)}},
		Apply: func() {
			m.refusals[merged.step], m.sides[merged.step] = m.refusals[b.step], merged
			m.st.Steps[j] = merged.step
			m.st.Steps = slices.Delete(m.st.Steps, i, i+1)
			m.states = slices.Delete(m.states, i, i+1)
		},
	})
	if !done {
		m.noted[a.step], m.noted[b.step] = true, true
	}
	return nil
}

// refused is what about the two RUNs, other than what the first one runs, keeps them apart.
func (m *merger) refused(a, b *mergeSide, at *plan.State) *refusal {
	for _, side := range []*mergeSide{a, b} {
		switch {
		case !side.cmd.PrependShell:
			return &refusal{"exec-form", "a RUN in exec form has no shell"}
		case len(side.cmd.Files) > 0 || strings.Contains(side.script.Text, "<<"):
			return &refusal{"heredoc", "a RUN with a heredoc is not joined with another"}
		}
		var ok bool
		if side.text, ok = cutRun(side.step.Text, m.w.Plan.Escape); !ok {
			return &refusal{"unreadable", "its flags or line ends are not plain"}
		}
	}
	switch {
	case !sameFlags(a.text.flags, b.text.flags):
		return &refusal{"different-flags", "the RUNs have different flags"}
	case slices.ContainsFunc(a.text.flags, ownMount):
		return &refusal{"own-mount", "a tmpfs or writable bind mount is empty again for the next RUN"}
	case len(a.script.Comments()) > 0:
		return &refusal{"comment", "a shell comment would hide what comes behind it"}
	}
	if startsWithFile(at) {
		return &refusal{"startup-file", "bash reads the file that BASH_ENV names when a RUN starts"}
	}
	return nil
}

func shellRefusal(err error) *refusal {
	switch {
	case errors.Is(err, script.ErrShell):
		return &refusal{"unknown-shell", err.Error()}
	case errors.Is(err, script.ErrShebang):
		return &refusal{"heredoc", "a heredoc that starts with #! is a program of its own"}
	}
	return &refusal{"unreadable", err.Error()}
}

// staleIndex reports the first install that uses the index of an earlier step that does more than update it.
func (m *merger) staleIndex() {
	updated, told := map[string]*plan.Step{}, map[string]bool{}
	for j, s := range m.st.Steps {
		if _, ok := s.Cmd.(*instructions.RunCommand); !ok {
			continue
		}
		for _, manager := range []string{"apt-get", "apk"} { // dnf and yum look for themselves how old the index is
			needs, own := m.uses(j, manager)
			if from := updated[manager]; needs && from != nil && !told[manager] && !m.noted[from] && m.refusals[from] == nil {
				m.noted[s], told[manager] = true, true
				m.w.Missed(s, "stale-index", fmt.Sprintf("%s installs from the index of line %d, which may be old by then: that step does more than update it; update the index here as well", manager, from.Lines.First), Arg{"update", fmt.Sprint(from.Lines.First)})
			}
			if own {
				updated[manager] = s
			}
		}
	}
}

// groups reports, once for each run of RUNs that stay apart, why.
func (m *merger) groups() {
	for i := 0; i < len(m.st.Steps); i++ {
		if _, ok := m.st.Steps[i].Cmd.(*instructions.RunCommand); !ok {
			continue
		}
		group := []*plan.Step{m.st.Steps[i]}
		for j := m.next(i); j > 0; j = m.next(j) {
			group = append(group, m.st.Steps[j])
			i = j
		}
		if len(group) > 1 {
			m.group(group)
		}
	}
}

func (m *merger) group(group []*plan.Step) {
	for _, s := range group {
		if m.noted[s] || s.Kept(m.w.pass.Name) {
			return
		}
	}
	for _, s := range group[:len(group)-1] {
		if r := m.refusals[s]; r != nil {
			m.w.Missed(s, r.name, r.message)
			return
		}
	}
	first, last := group[0], group[len(group)-1]
	m.w.Missed(first, "would-lose-cache", fmt.Sprintf("the %d RUNs in lines %d-%d stay steps of their own: as one, a change of a later line would run the earlier ones again",
		len(group), first.Lines.First, last.Lines.Last), Arg{"steps", fmt.Sprint(len(group))}, Arg{"last", fmt.Sprint(last.Lines.Last)})
}
