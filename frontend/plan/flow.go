package plan

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// State is what a step starts with.
type State struct {
	Known  bool     // the base image's config is known; else Env lacks what it sets, and User, Dir and Shell may be wrong
	User   string   // as USER said, "" is root
	UserOK bool     // User is known
	Dir    string   // absolute
	DirOK  bool     // Dir is known
	Shell  []string // of shell-form RUN
	Env    []Var    // what the step's process sees and what its text expands: ENV and ARG, a name once
	Config []Var    // the environment of the image's config, in its order
	escape rune
}

// Var is a variable of the build.
type Var struct {
	Name, Value string
	Known       bool // Value is known
	Arg         bool // an ARG's, that is: not in the image's config
	Step        int  // ID of the step that set it, 0 for the base image
}

// DefaultShell runs shell-form commands where neither SHELL nor the base image says otherwise.
var DefaultShell = []string{"/bin/sh", "-c"}

// Lookup finds a variable. known is false if its value is not known, or if it may be set by a base image that is not known.
func (s *State) Lookup(name string) (v Var, set, known bool) {
	if i := slices.IndexFunc(s.Env, func(v Var) bool { return v.Name == name }); i >= 0 {
		return s.Env[i], true, s.Env[i].Known
	}
	return Var{}, false, s.Known
}

// Expand expands variables as BuildKit expands a word of an instruction. ok is false if a value that matters is unknown.
func (s *State) Expand(word string) (value string, ok bool) {
	if !strings.ContainsAny(word, "$\"'\\`<") { // the usual case; the lexer would only copy it
		return word, true
	}
	e := &getter{s: s, ok: true}
	value, _, err := shell.NewLex(s.escape).ProcessWord(word, e)
	return value, e.ok && err == nil
}

type getter struct {
	s  *State
	ok bool
}

func (g *getter) Get(name string) (string, bool) {
	v, set, known := g.s.Lookup(name)
	g.ok = g.ok && known
	return v.Value, set
}

func (g *getter) Keys() []string {
	keys := make([]string, len(g.s.Env))
	for i, v := range g.s.Env {
		keys[i] = v.Name
	}
	return keys
}

func (s *State) set(v Var) {
	if i := slices.IndexFunc(s.Env, func(w Var) bool { return w.Name == v.Name }); i >= 0 {
		s.Env[i] = v
	} else {
		s.Env = append(s.Env, v)
	}
	if v.Arg {
		return
	}
	if i := slices.IndexFunc(s.Config, func(w Var) bool { return w.Name == v.Name }); i >= 0 {
		s.Config[i] = v
	} else {
		s.Config = append(s.Config, v)
	}
}

func (s *State) clone() State {
	t := *s
	t.Env, t.Config = slices.Clone(s.Env), slices.Clone(s.Config)
	return t
}

// Resolve tells what a stage builds on: another stage, or an image by its expanded name; ok is false if the name depends on what is unknown.
func (p *Plan) Resolve(st *Stage, f *Facts) (stage *Stage, image string, ok bool) {
	name := st.Def.BaseName
	if strings.ContainsAny(name, "$\"'\\`") {
		var ok bool
		if name, ok = p.Global(f).Expand(name); !ok {
			return nil, name, false
		}
	}
	for i := slices.Index(p.Stages, st) - 1; i >= 0; i-- {
		if p.Stages[i].Def.Name != "" && strings.EqualFold(p.Stages[i].Def.Name, name) {
			return p.Stages[i], "", true
		}
	}
	return nil, name, true
}

// Stage finds a stage by what COPY --from and --target call it: its name, or its number.
func (p *Plan) Stage(name string) *Stage {
	for i := len(p.Stages) - 1; i >= 0; i-- {
		if p.Stages[i].Def.Name != "" && strings.EqualFold(p.Stages[i].Def.Name, name) {
			return p.Stages[i]
		}
	}
	if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(p.Stages) { // 00 and +0 are numbers, too
		return p.Stages[i]
	}
	return nil
}

// Target is the stage that is built, nil if there is none of that name.
func (p *Plan) Target(f *Facts) *Stage {
	if f.Target == "" {
		return p.last()
	}
	return p.Stage(f.Target)
}

// Global is the state in which FROM lines are expanded: the arguments above the first stage.
func (p *Plan) Global(f *Facts) *State {
	s := &State{Known: true, escape: p.Escape}
	for _, v := range p.platformArgs(f) {
		s.set(v)
	}
	for _, step := range p.Args {
		for _, a := range step.Cmd.(*instructions.ArgCommand).Args {
			v := Var{Name: a.Key, Arg: true, Step: step.ID}
			if given, ok := f.BuildArgs[a.Key]; ok {
				v.Value, v.Known = given, true
			} else if a.Value != nil {
				v.Value, v.Known = s.Expand(*a.Value)
			} else {
				continue
			}
			s.set(v)
		}
	}
	return s
}

func (p *Plan) platformArgs(f *Facts) []Var {
	target, known := f.Build, f.Build.OS != ""
	if len(f.Targets) == 1 {
		target, known = f.Targets[0], true
	}
	several := len(f.Targets) > 1
	var vars []Var
	add := func(prefix string, pl ocispecs.Platform, known bool) {
		for _, kv := range [][2]string{{"PLATFORM", platforms.Format(pl)}, {"OS", pl.OS}, {"OSVERSION", pl.OSVersion}, {"ARCH", pl.Architecture}, {"VARIANT", pl.Variant}} {
			v := Var{Name: prefix + kv[0], Value: kv[1], Known: known, Arg: true}
			if given, ok := f.BuildArgs[v.Name]; ok {
				v.Value, v.Known = given, true
			}
			vars = append(vars, v)
		}
	}
	add("BUILD", f.Build, f.Build.OS != "")
	add("TARGET", target, known && !several)
	stage := f.Target
	if stage == "" && len(p.Stages) > 0 {
		stage = p.last().Def.Name
	}
	if stage == "" {
		stage = "default"
	}
	if given, ok := f.BuildArgs["TARGETSTAGE"]; ok {
		stage = given
	}
	return append(vars, Var{Name: "TARGETSTAGE", Value: stage, Known: true, Arg: true})
}

// Flow gives the states in which the stage's steps start, and after them the state that the stage ends with: len(Steps)+1.
func (p *Plan) Flow(st *Stage, f *Facts) []State {
	global := p.Global(f)
	s := p.start(st, f)
	states := make([]State, 0, len(st.Steps)+1)
	for _, step := range st.Steps {
		states = append(states, s)
		s = s.clone()
		if st.Def.Name == "" || !f.Replaced(st.Def.Name) { // else the stage is the named context, and no step of it runs
			s.apply(step, global, f)
		}
	}
	return append(states, s)
}

func (p *Plan) start(st *Stage, f *Facts) State {
	s := State{Dir: "/", DirOK: true, UserOK: true, Shell: DefaultShell, escape: p.Escape}
	base, name, ok := p.Resolve(st, f)
	if st.Def.Name != "" && f.Replaced(st.Def.Name) || ok && base == nil && f.Replaced(name) {
		ok, base = false, nil
	}
	if base != nil {
		states := p.Flow(base, f)
		s = states[len(states)-1].clone()
		for _, v := range s.Config { // the image's environment is set once more: an ARG of the base stage no longer hides it
			s.set(v)
		}
		if slices.ContainsFunc(base.Steps, isTrigger) { // they run first, and may be any instruction
			s.forget()
		}
		return s
	}
	img, found := f.Images[name]
	switch {
	case ok && name == "scratch":
		img, found = Image{}, true
	case !ok || !found || len(img.OnBuild) > 0:
		s.UserOK, s.DirOK = false, false
		return s
	}
	s.Known = true
	for _, kv := range img.Env {
		k, v, known := strings.Cut(kv, "=")
		s.set(Var{Name: k, Value: v, Known: known})
	}
	if _, set, _ := s.Lookup("PATH"); !set {
		s.set(Var{Name: "PATH", Value: defaultPath, Known: true})
	}
	s.User = img.User
	if img.WorkingDir != "" {
		s.Dir = img.WorkingDir
	}
	if len(img.Shell) > 0 {
		s.Shell = img.Shell
	}
	return s
}

// defaultPath is PATH where the base image says nothing of it.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func isTrigger(s *Step) bool {
	_, ok := s.Cmd.(*instructions.OnbuildCommand)
	return ok
}

// forget makes everything unknown.
func (s *State) forget() {
	s.Known, s.UserOK, s.DirOK = false, false, false
	for _, list := range [][]Var{s.Env, s.Config} {
		for i := range list {
			list[i].Known = false
		}
	}
}

// apply is what an instruction does to the state.
func (s *State) apply(step *Step, global *State, f *Facts) {
	switch c := step.Cmd.(type) {
	case *instructions.EnvCommand:
		before := s.clone() // all of a line's values see the environment before the line
		for _, kv := range c.Env {
			v := Var{Name: kv.Key, Step: step.ID}
			v.Value, v.Known = before.Expand(kv.Value)
			if k, ok := before.Expand(kv.Key); ok {
				v.Name = k
			}
			s.set(v)
		}
	case *instructions.ArgCommand:
		for _, a := range c.Args {
			v := Var{Name: a.Key, Arg: true, Step: step.ID}
			if given, ok := f.BuildArgs[a.Key]; ok {
				v.Value, v.Known = given, true
			} else if a.Value != nil {
				v.Value, v.Known = s.Expand(*a.Value)
			} else if g, set, known := global.Lookup(a.Key); set {
				v.Value, v.Known = g.Value, known
			} else {
				continue
			}
			s.set(v)
		}
	case *instructions.UserCommand:
		s.User, s.UserOK = s.Expand(c.User)
	case *instructions.WorkdirCommand:
		dir, ok := s.Expand(c.Path)
		if path.IsAbs(dir) {
			s.Dir, s.DirOK = path.Clean(dir), ok
		} else {
			s.Dir, s.DirOK = path.Join(s.Dir, dir), ok && s.DirOK
		}
	case *instructions.ShellCommand:
		s.Shell = c.Shell
	}
}

// Root reports whether the step is known to run as root.
func (s *State) Root() bool {
	if !s.UserOK {
		return false
	}
	user, _, _ := strings.Cut(s.User, ":")
	return user == "" || user == "0" || user == "root"
}
