package opt

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/optbuild/optbuild/frontend/opt/installer"
	"github.com/optbuild/optbuild/frontend/plan"
)

// splitCopy copies the manifests of a package manager before the rest, so that a changed source file does not run the installation again.
//
// Before:
//
//	COPY . .
//	RUN npm ci
//
// After:
//
//	COPY package.json package-lock.json ./
//	RUN npm ci
//	COPY . .
//
// The files come out the same if the installer reads nothing of what is copied later, and writes nothing that is copied later: the table of
// installers (installers.go) says what each reads and writes, and under which conditions that is all. What the COPY copies a second time it copies
// with the same owner and mode, and the directories that it finds get those of the context: fsutil's copy overwrites the metadata of existing
// directories below the destination, and in neither order that of the destination itself.
//
// The pass looks at the COPY instructions that stand right above a RUN, with nothing but metadata between them. Each COPY of more than manifests
// moves below the RUN and leaves its manifests behind; the others stay.
func splitCopy(w *Work) {
	stages := w.Plan.Stages
	if !w.Options.Fix {
		stages = w.Plan.Live(w.Facts)
	}
	for _, st := range stages {
		var flow []plan.State
		for i := 0; i < len(st.Steps); i++ {
			if s := newSplit(w.Plan, w.Facts, st, i, &flow); s != nil {
				i += s.do(w)
				flow = nil // of the stage as it was
			}
		}
	}
}

// splitCopyWants are the paths that the pass will look at.
func splitCopyWants(p *plan.Plan, f *plan.Facts) []string {
	var want []string
	for _, st := range p.Live(f) {
		var flow []plan.State
		for i := range st.Steps {
			if s := newSplit(p, f, st, i, &flow); s != nil {
				want = append(want, s.wants()...)
			}
		}
	}
	return want
}

// copySplit is a RUN that installs, and the steps above it that matter.
type copySplit struct {
	plan   *plan.Plan
	facts  *plan.Facts
	stage  *plan.Stage
	at     int // index of the RUN
	run    *plan.Step
	calls  *calls         // what it runs
	states []plan.State   // of the stage
	first  int            // index of the first step of the block above the RUN
	copies []*contextCopy // of the block
	asked  []string       // paths of the context that examine looked at
	before *plan.Step     // the step above the block that ended it, nil for FROM
}

// newSplit reads the RUN at index i and what stands above it; nil if the pass is not applicable. flow are the stage's states, found when they are needed.
func newSplit(p *plan.Plan, f *plan.Facts, st *plan.Stage, i int, flow *[]plan.State) *copySplit {
	if _, ok := st.Steps[i].Cmd.(*instructions.RunCommand); !ok || !installer.MayInstall(st.Steps[i].Text) {
		return nil
	}
	if *flow == nil {
		*flow = p.Flow(st, f)
	}
	s := &copySplit{plan: p, facts: f, stage: st, at: i, run: st.Steps[i], states: *flow}
	s.calls = readCalls(p, s.run, &s.states[i])
	if s.calls == nil {
		return nil
	}
	s.first = i
	for s.first > 0 {
		step := st.Steps[s.first-1]
		if !betweenCopyAndRun(step.Cmd) {
			c := readCopy(step, s.first-1, &s.states[s.first-1], f.Context)
			if c == nil {
				s.before = step
				break
			}
			s.copies = append(s.copies, c)
		}
		s.first--
	}
	slices.Reverse(s.copies)
	if !slices.ContainsFunc(s.copies, (*contextCopy).wide) && !s.shadowed() {
		return nil
	}
	return s
}

// shadowed reports whether the pass would be applicable, were it not for the step above the RUN.
func (s *copySplit) shadowed() bool {
	if len(s.copies) > 0 || s.before == nil || !s.calls.manifests() {
		return false
	}
	if oddCopy(s.before) {
		return true
	}
	for i := s.first - 1; i >= 0; i-- {
		c := readCopy(s.stage.Steps[i], i, &s.states[i], s.facts.Context)
		if c == nil {
			continue
		}
		return c.wide() && slices.ContainsFunc(s.calls.known, func(k *installer.Call) bool { return insideDir(k.Dir(&s.states[s.at]), c.dest) })
	}
	return false
}

// oddCopy reports whether a step that readCopy does not follow copies directories of the context all the same.
func oddCopy(step *plan.Step) bool {
	c, ok := step.Cmd.(*instructions.CopyCommand)
	if !ok || c.From != "" {
		return false
	}
	return slices.ContainsFunc(c.SourcePaths, func(src string) bool { return path.Clean(src) == "." || strings.HasSuffix(src, "/") || src == "/" })
}

// betweenCopyAndRun reports whether a step between the COPY and the RUN only changes metadata, or what later steps see of them.
func betweenCopyAndRun(c instructions.Command) bool {
	switch c.(type) {
	case *instructions.ArgCommand, *instructions.EnvCommand, *instructions.LabelCommand, *instructions.ExposeCommand, *instructions.CmdCommand,
		*instructions.EntrypointCommand, *instructions.HealthCheckCommand, *instructions.StopSignalCommand, *instructions.MaintainerCommand,
		*instructions.ShellCommand, *instructions.UserCommand, *instructions.WorkdirCommand, *instructions.VolumeCommand, *instructions.OnbuildCommand:
		return true
	}
	return false
}

// do splits, or says why not. It returns by how many the steps up to and including the RUN have become more.
func (s *copySplit) do(w *Work) int {
	work, r := s.examine()
	if r != nil {
		if w.Options.Level != All && (r.name == "context-unknown" || r.name == "content-unknown") { // nobody was asked
			r = refuseSplit("level", "what is no manifest could be copied after it, only with --optimize=all")
		}
		if r.name != "" {
			s.missed(w, r)
		}
		return 0
	}
	steps := []*plan.Step{s.run}
	for _, c := range work.moved {
		steps = append(steps, c.step)
	}
	slices.SortStableFunc(steps, func(a, b *plan.Step) int { return a.Lines.First - b.Lines.First })
	grown := 0
	w.Do(Change{
		Steps:   steps,
		Name:    "manifests-first",
		Message: s.sentence(work.names),
		Args:    []Arg{{"installer", s.calls.name()}, {"manifests", strings.Join(work.names, " ")}},
		Apply: func() {
			made := work.steps(s)
			s.stage.Steps = slices.Concat(s.stage.Steps[:s.first], made, s.stage.Steps[s.at+1:])
			grown = slices.IndexFunc(made, func(t *plan.Step) bool { return t == work.run }) - (s.at - s.first)
		},
	})
	return grown
}

func (s *copySplit) sentence(manifests []string) string {
	if len(manifests) == 0 {
		return s.calls.sentence("need") + " none of the copied files, which are copied after it"
	}
	return s.calls.sentence("need") + " only " + enumerateNames(manifests) + "; the rest is copied after it"
}

func (s *copySplit) missed(w *Work, r *splitRefusal) {
	args := append([]Arg{{"installer", s.calls.name()}}, r.args...)
	w.Missed(s.run, r.name, s.calls.sentence("run")+" again whenever a copied file changes: "+r.message, args...)
}

// copyRewrite is what examine found that can be done.
type copyRewrite struct {
	moved     []*contextCopy
	manifests map[*contextCopy][]string // absolute paths in the container, of those that move
	names     []string                  // of all manifests, for people
	first     string                    // the part of the RUN's text that installs, "" for all of it
	rest      string
	run       *plan.Step // the RUN that installs, once made
}

// examine decides. A refusal without a name means that there is nothing to do.
func (s *copySplit) examine() (*copyRewrite, *splitRefusal) {
	state := &s.states[s.at]
	if !state.Known || !state.DirOK {
		return nil, refuseSplit("base-unknown", "the environment that the base image sets is not known")
	}
	if len(s.copies) == 0 && oddCopy(s.before) {
		return nil, refuseSplit("copy-form", "the COPY above it has flags or words that are not followed")
	}
	if len(s.copies) == 0 {
		return nil, refuseSplit("other-step", fmt.Sprintf("the %s of line %d stands between the COPY and it, and may read and write any file", strings.ToUpper(s.before.Cmd.Name()), s.before.Lines.First))
	}
	tree := &copiedTree{ctx: s.facts.Context, copies: s.copies}
	defer func() { s.asked = tree.asked }()
	if r := s.calls.check(tree); r != nil {
		return nil, r
	}
	var manifests []string
	var roots []string
	for _, call := range s.calls.known {
		read, r := call.Examine(tree, state)
		if r != nil {
			return nil, refuseSplit(r.Name, r.Message)
		}
		for _, m := range read {
			if !slices.Contains(manifests, m) {
				manifests = append(manifests, m)
			}
		}
		if call.ReadsManifests() {
			roots = append(roots, call.Dir(state))
		}
	}
	work := &copyRewrite{manifests: map[*contextCopy][]string{}, first: s.calls.first, rest: s.calls.rest}
	for _, c := range s.copies {
		if !c.wide() || !c.related(roots) {
			continue
		}
		if r := s.movable(c, tree); r != nil {
			return nil, r
		}
		work.moved = append(work.moved, c)
	}
	if len(work.moved) == 0 {
		return nil, &splitRefusal{}
	}
	for _, m := range manifests {
		from, name, _, _ := tree.entry(m)
		work.names = append(work.names, name)
		if slices.Contains(work.moved, from) {
			work.manifests[from] = append(work.manifests[from], m)
		}
	}
	if r := s.overlaps(work); r != nil {
		return nil, r
	}
	if r := work.directories(tree, state.Root()); r != nil {
		return nil, r
	}
	return work, nil
}

// movable reports what speaks against running the COPY after the steps between it and the RUN, and after the RUN.
func (s *copySplit) movable(c *contextCopy, tree *copiedTree) *splitRefusal {
	if sharedDir(c.dest) {
		return refuseSplit("shared-destination", "the files are copied to "+c.dest+", where programs keep files of their own", Arg{"destination", c.dest})
	}
	links := linkFinder{plan: s.plan, facts: s.facts}
	why := links.through(s.stage, s.at, c.dest)
	tree.asked = append(tree.asked, links.asked...)
	if why != "" {
		return refuseSplit("symlinked-destination", why, Arg{"destination", c.dest})
	}
	if c.variable {
		return refuseSplit("variable-source", "the COPY's source depends on a variable, and so do the manifests")
	}
	for i := c.at + 1; i < s.at; i++ {
		switch s.stage.Steps[i].Cmd.(type) {
		case *instructions.ArgCommand, *instructions.EnvCommand:
			if strings.Contains(c.step.Text, "$") {
				return refuseSplit("variable-between", "the COPY expands a variable, and a step between it and the RUN sets one")
			}
		case *instructions.WorkdirCommand:
			if !path.IsAbs(c.raw) && s.states[i].Dir != s.states[i+1].Dir {
				return refuseSplit("workdir-between", "the COPY's destination is relative to a directory that changes before the RUN")
			}
		}
	}
	return nil
}

// overlaps refuses what makes the order of COPY instructions matter that change places: a file that one which stays copies and one which moves copies, too.
func (s *copySplit) overlaps(work *copyRewrite) *splitRefusal {
	for _, stays := range s.copies {
		if slices.Contains(work.moved, stays) {
			continue
		}
		for _, moves := range work.moved {
			if moves.at > stays.at {
				continue
			}
			if r := moves.covers(s.facts.Context, stays); r != nil {
				return r
			}
		}
	}
	for _, c := range work.moved {
		if len(work.manifests[c]) > 0 {
			continue
		}
		for i := c.at + 1; i < s.at; i++ { // without manifests, the directory would now be made by WORKDIR, as another user maybe
			if _, ok := s.stage.Steps[i].Cmd.(*instructions.WorkdirCommand); ok {
				return refuseSplit("workdir-between", "a WORKDIR between the COPY and the RUN may make the COPY's destination")
			}
		}
	}
	return nil
}

// directories refuses manifests below the destination whose directory would have another mode while the RUN runs, if the RUN could tell: what is made in a directory
// with the set-group-id bit takes over its group, and a user other than root may not write to all.
func (work *copyRewrite) directories(t *copiedTree, root bool) *splitRefusal {
	for _, c := range work.moved {
		for _, m := range work.manifests[c] {
			for dir := path.Dir(m); dir != c.dest; dir = path.Dir(dir) {
				_, p, known := t.Lookup(dir)
				switch {
				case !known:
					return refuseSplit("context-unknown", "the mode of "+dir+" in the context is not known", Arg{"directory", dir})
				case p.Mode&(fs.ModeSetgid|fs.ModeSetuid|fs.ModeSticky) != 0 || !root && p.Mode.Perm()&^0o020 != 0o755:
					return refuseSplit("directory-mode", dir+" has another mode than the one that a COPY of a file in it would give it", Arg{"directory", dir}, Arg{"mode", p.Mode.String()})
				}
			}
		}
	}
	return nil
}

// steps are the block and the RUN as they come out.
func (work *copyRewrite) steps(s *copySplit) []*plan.Step {
	var made, after []*plan.Step
	for i := s.first; i < s.at; i++ {
		step := s.stage.Steps[i]
		k := slices.IndexFunc(work.moved, func(c *contextCopy) bool { return c.at == i })
		if k < 0 {
			made = append(made, step)
			continue
		}
		made = append(made, work.moved[k].narrow(s.plan, s.facts.Context, work.manifests[work.moved[k]])...)
		after = append(after, step)
	}
	work.run = s.run
	var rest []*plan.Step
	if work.rest != "" {
		work.run = mustStep(s.plan.NewStep("RUN "+work.first, s.run))
		rest = append(rest, mustStep(s.plan.NewStep("RUN "+work.rest, s.run)).WithLead(""))
	}
	return slices.Concat(made, []*plan.Step{work.run}, after, rest)
}

func mustStep(s *plan.Step, err error) *plan.Step {
	if err != nil {
		panic(err)
	}
	return s
}

// enumerateNames joins names for a sentence.
func enumerateNames(names []string) string {
	switch n := len(names); {
	case n == 1:
		return names[0]
	case n > 6:
		return fmt.Sprintf("%s and %d other files", strings.Join(names[:5], ", "), n-5)
	default:
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
}

// wants lists the paths of the context that examine would look at.
func (s *copySplit) wants() []string {
	state := &s.states[s.at]
	if !state.Known || !state.DirOK || s.calls.refusal != nil {
		return nil
	}
	var list []string
	for _, c := range s.copies {
		for _, src := range c.sources {
			list = append(list, src.path)
		}
		for _, name := range installer.HomeFiles {
			list = append(list, c.from(path.Join(c.dest, name))...)
		}
		for _, call := range s.calls.known {
			dir := call.Dir(state)
			for _, name := range call.Looks() {
				list = append(list, c.from(path.Join(dir, name))...)
				for above := path.Dir(dir); insideDir(above, c.dest) && above != "/"; above = path.Dir(above) {
					list = append(list, c.from(path.Join(above, name))...)
				}
			}
		}
	}
	if s.facts.Context != nil { // what manifests name
		s.examine()
		list = append(list, s.asked...)
	}
	return slices.DeleteFunc(list, func(name string) bool { return name == "." || strings.HasPrefix(name, "..") })
}
