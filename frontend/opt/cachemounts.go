package opt

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/script"
	"github.com/optbuild/optbuild/frontend/world"
)

// cacheMounts puts download caches whose absence costs nothing but time into cache mounts: they are kept from one build to the next, whatever
// changed, and are not in the image. cacheTools says which caches there are, and why what an earlier build left there cannot change a result.
//
// Before:
//
//	FROM node:22
//	COPY . /app
//	WORKDIR /app
//	RUN npm ci
//
// After:
//
//	RUN --mount=type=cache,target=/root/.npm/_cacache npm ci
//
// (in a build the mount has an id of its own as well, see ownCache).
//
// A cache is the tool's own: a program that this pass does not know is taken to leave it alone unless the file *names* it: its path, a
// directory above it as an operand of a program that may look below it, the variable that moves it, or the tool's own command that
// looks into it. That is less than "an unknown program may read any file", and holds because a cache is the one thing of which its
// tool promises that anybody may remove it at any time, while what may run a tool in it (a build script) gets what it needs by
// downloading. Where there is no network to do so (--network=none, offline flags), or where the cache is an input of other programs as
// well (Go's modules are sources), the rule of all other passes holds.
func cacheMounts(w *Work) {
	m := &cacheMounter{w: w, scripts: map[int]scriptOrError{}, flows: map[*plan.Stage][]plan.State{}, bases: map[*plan.Stage]*plan.Stage{}}
	for _, st := range w.Plan.Stages {
		m.bases[st], _, _ = w.Plan.Resolve(st, w.Facts)
	}
	for _, st := range w.Plan.Stages {
		for i := range st.Steps {
			m.step(st, i)
		}
	}
}

// cacheTops are what a tree has to have at its top to reach into a cache when it is copied to a directory above it.
var cacheTops = map[string][]string{
	"/":     {"etc", "go", "home", "root", "tmp", "usr", "var"},
	"/root": {".bun", ".cache", ".cargo", ".gradle", ".local", ".m2", ".npm", "go"},
}

// cacheWants are the sources of COPY to / and /root, where images without WORKDIR copy everything to.
func cacheWants(p *plan.Plan, f *plan.Facts) []string {
	var want []string
	for _, st := range p.Stages {
		var states []plan.State
		for i, s := range st.Steps {
			c, ok := s.Cmd.(*instructions.CopyCommand)
			if !ok || c.From != "" {
				continue
			}
			if states == nil {
				states = p.Flow(st, f)
			}
			dest, ok := states[i].Expand(c.DestPath)
			if !path.IsAbs(dest) {
				dest, ok = path.Join(states[i].Dir, dest), ok && states[i].DirOK
			}
			tops := cacheTops[path.Clean(dest)]
			if !ok || tops == nil || !slices.ContainsFunc(st.Steps, func(s *plan.Step) bool { return toolsIn(s) != nil }) {
				continue
			}
			for _, source := range c.SourcePaths {
				if strings.ContainsAny(source, "*?[$\\") {
					continue
				}
				if path.Clean(source) != "." && path.Clean(source) != "/" {
					want = append(want, path.Clean(source))
				}
				for _, top := range tops {
					want = append(want, path.Join(source, top))
				}
			}
		}
	}
	return want
}

// toolsIn are the tools that a RUN may use, going by its text.
func toolsIn(s *plan.Step) []*cacheTool {
	var tools []*cacheTool
	if _, ok := s.Cmd.(*instructions.RunCommand); !ok {
		return nil
	}
	for t := range cacheTools {
		if slices.ContainsFunc(cacheTools[t].programs, func(p string) bool { return hasWord(s.Text, p) }) {
			tools = append(tools, &cacheTools[t])
		}
	}
	return tools
}

// cacheMounter is the pass at work.
type cacheMounter struct {
	w       *Work
	scripts map[int]scriptOrError // by step ID
	flows   map[*plan.Stage][]plan.State
	bases   map[*plan.Stage]*plan.Stage // what a stage builds on, nil for an image
}

type scriptOrError struct {
	s   *script.Script
	err error
}

func (m *cacheMounter) flow(st *plan.Stage) []plan.State {
	if m.flows[st] == nil {
		m.flows[st] = m.w.Plan.Flow(st, m.w.Facts)
	}
	return m.flows[st]
}

// script is what a RUN of the stage runs.
func (m *cacheMounter) script(st *plan.Stage, i int) (*script.Script, error) {
	s := st.Steps[i]
	if e, ok := m.scripts[s.ID]; ok {
		return e.s, e.err
	}
	sc, err := scriptOf(s.Cmd.(*instructions.RunCommand), &m.flow(st)[i])
	m.scripts[s.ID] = scriptOrError{sc, err}
	return sc, err
}

func (m *cacheMounter) step(st *plan.Stage, i int) {
	s := st.Steps[i]
	tools := toolsIn(s)
	if len(tools) == 0 {
		return
	}
	at := &m.flow(st)[i]
	if _, err := m.script(st, i); err != nil {
		if !at.Known {
			m.w.Missed(s, "unknown-base", "nothing is known of the base image, so neither is where "+tools[0].name+" has its cache", Arg{"cache", tools[0].name})
			return
		}
		m.w.Missed(s, "unknown-script", "cannot tell what the step runs: "+err.Error())
		return
	}
	for _, t := range tools {
		sc, err := m.script(st, i)
		if err != nil { // again: the step may be another one by now
			panic(err)
		}
		use := &cacheUse{tool: t, script: sc, at: at}
		for _, c := range sc.Commands() {
			if slices.Contains(t.programs, c.Name()) && t.fills(c) {
				use.commands = append(use.commands, c)
			}
		}
		if len(use.commands) > 0 {
			m.use(st, i, use)
		}
	}
}

// use adds the mounts of one cache to a step, or says why not.
func (m *cacheMounter) use(st *plan.Stage, i int, u *cacheUse) {
	s, t := st.Steps[i], u.tool
	missed := func(name, message string) { m.w.Missed(s, name, message, Arg{"cache", t.name}) }
	if !u.at.Known {
		missed("unknown-base", "nothing is known of the base image, so neither is where "+t.name+" has its cache")
		return
	}
	m.base(st, i, u)
	owner, why := m.owner(u)
	if why != "" {
		missed("unknown-user", why)
		return
	}
	u.home = owner.home
	mounts, why := t.place(u)
	switch {
	case u.unknown != "":
		missed("unknown-variable", u.unknown+" decides where "+t.name+" has its cache, and its value is not known")
		return
	case why != "":
		missed("place", why)
		return
	case len(mounts) == 0:
		return
	}
	for _, mount := range mounts {
		if !path.IsAbs(mount.target) || strings.ContainsAny(mount.target, " \t,\"'\\$") {
			missed("place", "the cache's directory "+mount.target+" is not one that a mount can have")
			return
		}
	}
	switch covered, why := m.covered(s, u.at, mounts); {
	case why != "":
		missed("mounts", why)
		return
	case covered:
		return
	}
	if mounts, why = m.parents(st, i, u, owner, mounts); why != "" {
		missed("parent-owner", why)
		return
	}
	r := &cacheReaders{m: m, st: st, i: i, u: u, mounts: mounts}
	if name, why := r.conflict(); name != "" {
		missed(name, why)
		return
	}
	text, why := m.rewrite(s, u, mounts, owner, r.drops)
	if why != "" {
		missed("cleaned", why)
		return
	}
	m.do(st, i, u, text, mounts, len(r.drops) > 0)
}

func (m *cacheMounter) do(st *plan.Stage, i int, u *cacheUse, text string, mounts []cacheMount, dropped bool) {
	s := st.Steps[i]
	keeps, why := u.tool.keeps(u)
	if keeps == Files && !u.official && !u.tool.anyBase {
		keeps, why = Observed, u.image+" may have something in the cache that cannot be downloaded"
	}
	title := u.tool.title
	if title == "" {
		title = "download cache of " + u.tool.name
	}
	message := "the " + title + " becomes a cache mount"
	if why != "" {
		message += " (" + why + ")"
	}
	c := Change{Steps: []*plan.Step{s}, Name: "mounted", Message: message, Args: []Arg{{"cache", u.tool.name}}, Keeps: keeps}
	for _, mount := range mounts {
		if mount.kind != "bind" && !slices.ContainsFunc(mounts, func(m cacheMount) bool { return relate(m.target, mount.target) == pathAbove }) {
			c.Residue = append(c.Residue, mount.target)
		}
		if dropped && u.tool.traces != "" && mount.kind == "" {
			c.Residue = append(c.Residue, path.Join(path.Dir(mount.target), u.tool.traces))
		}
	}
	made, err := m.w.Plan.NewStep(text, s)
	if err != nil {
		panic(err) // rewrite has parsed it
	}
	c.Apply = func() { st.Steps[i] = made }
	m.w.Do(c)
}

// base finds out what the stage builds on.
func (m *cacheMounter) base(st *plan.Stage, i int, u *cacheUse) {
	chain := m.chain(st)
	root := chain[0]
	_, u.image, _ = m.w.Plan.Resolve(root, m.w.Facts)
	_, u.official = world.Official(u.image)
	if !strings.Contains(root.Def.BaseName, "$") && root.Def.Platform == "" && m.w.Plan.Stage(root.Def.BaseName) == nil {
		u.from = root.Def.BaseName
	}
	var text strings.Builder
	for _, c := range chain {
		for j, s := range c.Steps {
			if c == st && j > i {
				break
			}
			text.WriteString(s.Text + "\n")
			if u.strange != "" {
				continue
			}
			if _, ok := s.Cmd.(*instructions.RunCommand); ok {
				u.strange = m.strange(c, j, c == st && j == i, u)
			} else if m.copiesTo(c, j, u, packageSources) {
				u.strange = s.Cmd.Name()
			}
		}
	}
	u.chain = text.String()
}

// packageSources is where apt finds out what archives there are.
const packageSources = "/etc/apt"

// copiesTo reports whether a COPY or ADD may put something into the directory.
func (m *cacheMounter) copiesTo(st *plan.Stage, j int, u *cacheUse, dir string) bool {
	r := &cacheReaders{m: m, st: st, i: j, u: u, mounts: []cacheMount{{target: dir}}}
	switch st.Steps[j].Cmd.(type) {
	case *instructions.CopyCommand, *instructions.AddCommand:
		name, _ := r.step(st, j, false)
		return name != ""
	}
	return false
}

// strange is the first program of a step, up to the tool's own first command if last, that is not one of which is known what it does.
func (m *cacheMounter) strange(st *plan.Stage, i int, last bool, u *cacheUse) string {
	sc, err := m.script(st, i)
	if err != nil {
		return "a step that cannot be read"
	}
	walk := (&cacheReaders{m: m, st: st, i: i, u: u}).walk(st, i)
	for _, c := range sc.Commands() {
		if last && c.Start >= u.commands[0].Start {
			break
		}
		cwd := walk.next(c)
		if slices.Contains([]string{"cp", "mv", "ln", "install", "tar", "unzip"}, c.Name()) {
			var paths []string
			for _, w := range c.Args() {
				paths = append(paths, walk.paths(w, cwd)...)
			}
			if (c.Name() == "tar" || c.Name() == "unzip") && !c.HasFlag("-C", "--directory", "-d") {
				paths = append(paths, cwd...)
			}
			if slices.ContainsFunc(paths, func(p string) bool { return relate(p, packageSources) != pathApart }) {
				return programOf(c)
			}
		}
		root := slices.ContainsFunc(c.Args(), func(w script.Word) bool { return w.Raw == "/" })
		if !plainProgram(c) && !slices.Contains(u.tool.programs, c.Name()) || c.Is("tar") && root {
			return programOf(c)
		}
	}
	return ""
}

// chain are the stages that st builds on, the first one first, and st.
func (m *cacheMounter) chain(st *plan.Stage) []*plan.Stage {
	if base := m.bases[st]; base != nil {
		return append(m.chain(base), st)
	}
	return []*plan.Stage{st}
}

// covered reports whether a mount of the user's is where one of ours would be.
func (m *cacheMounter) covered(s *plan.Step, at *plan.State, mounts []cacheMount) (covered bool, why string) {
	have, err := m.mounts(s, at)
	if err != nil {
		return false, "the step's mounts depend on a value that is not known"
	}
	for _, h := range have {
		target := h.Target
		if !path.IsAbs(target) {
			target = path.Join(at.Dir, target)
		}
		for _, mount := range mounts {
			if relate(target, mount.target) != pathApart {
				return true, ""
			}
		}
	}
	return false, ""
}

// mounts are the mounts of a RUN. BuildKit reads most of a mount only when it expands variables, which it does in place.
func (m *cacheMounter) mounts(s *plan.Step, at *plan.State) ([]*instructions.Mount, error) {
	if len(instructions.GetMounts(s.Cmd.(*instructions.RunCommand))) == 0 {
		return nil, nil
	}
	again, err := m.w.Plan.NewStep(s.Text, s)
	if err != nil {
		return nil, err
	}
	run := again.Cmd.(*instructions.RunCommand)
	err = run.Expand(func(word string) (string, error) {
		v, ok := at.Expand(word)
		if !ok {
			return "", fmt.Errorf("expand %s: value is not known", word)
		}
		return v, nil
	})
	return instructions.GetMounts(run), err
}

// imageName is the last part of an image's name.
func imageName(image string) string {
	ref, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return ""
	}
	return path.Base(reference.FamiliarName(ref))
}
