package opt

import (
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/script"
)

// cacheReaders looks for whoever could tell that a cache is in a mount.
type cacheReaders struct {
	m      *cacheMounter
	st     *plan.Stage
	i      int
	u      *cacheUse
	mounts []cacheMount
	drops  []cacheDrop // what the step's own text has to lose
}

// conflict is the name and the text of a missed remark, "" if nobody could tell.
func (r *cacheReaders) conflict() (name, why string) {
	if name, why := r.own(); name != "" {
		return name, why
	}
	chain := r.m.chain(r.st)
	family := r.family()
	for _, st := range r.m.w.Plan.Stages {
		inChain, inFamily := slices.Contains(chain, st), slices.Contains(family, st)
		for i, s := range st.Steps {
			if st == r.st && i == r.i {
				continue
			}
			if inChain || inFamily {
				later := inFamily && (st != r.st || i > r.i)
				if name, why := r.step(st, i, later); name != "" {
					return name, why
				}
			}
			if name, why := r.takes(st, i, s, family); name != "" {
				return name, why
			}
		}
	}
	if r.u.tool.strict && r.outlives(family) {
		return "image", "what is downloaded is part of the image, whose programs may read it"
	}
	return "", ""
}

// family are the stage and all that build on it.
func (r *cacheReaders) family() []*plan.Stage {
	family := []*plan.Stage{r.st}
	for _, st := range r.m.w.Plan.Stages {
		if base := r.m.bases[st]; base != nil && slices.Contains(family, base) {
			family = append(family, st)
		}
	}
	return family
}

// outlives reports whether what a stage of the family holds is, or in a file for people may be, an image.
func (r *cacheReaders) outlives(family []*plan.Stage) bool {
	p := r.m.w.Plan
	used := map[*plan.Stage]bool{}
	for _, st := range p.Stages {
		if base := r.m.bases[st]; base != nil {
			used[base] = true
		}
		for _, s := range st.Steps {
			for _, name := range plan.References(s.Cmd) {
				if dep := p.Stage(name); dep != nil {
					used[dep] = true
				}
			}
		}
	}
	target := p.Target(r.m.w.Facts)
	return slices.ContainsFunc(family, func(st *plan.Stage) bool { return st == target || r.m.w.Options.Fix && !used[st] })
}

// own looks at the step that gets the mounts.
func (r *cacheReaders) own() (name, why string) {
	s, t := r.st.Steps[r.i], r.u.tool
	run := s.Cmd.(*instructions.RunCommand)
	if instructions.GetNetwork(run) == instructions.NetworkNone {
		return "offline", "without a network the step needs what is in the cache"
	}
	for _, c := range r.u.commands {
		if c.Conditional || c.Background || c.Function {
			return "conditional", "`" + r.text(c) + "` does not run each time, or not in turn"
		}
	}
	for _, h := range r.u.script.Hazards() {
		if h.Kind == script.Umask {
			return "umask", "with another umask the directories above the mount would have another mode"
		}
	}
	_, clean := r.u.script.Straight()
	walk := r.walk(r.st, r.i)
	for _, c := range r.u.script.Commands() {
		cwd := walk.next(c)
		if name, why := r.offline(c, false); name != "" {
			return name, why
		}
		switch {
		case r.fills(c):
			continue
		case r.tools(c) && is(c, t.empties):
			if !clean {
				return "cleaned", "`" + r.text(c) + "` empties the cache"
			}
			r.drops = append(r.drops, cacheDrop{command: c})
			continue
		case r.tools(c) && starts(c, t.asks):
			return "named", "`" + r.text(c) + "` looks into the cache"
		case c.Name() == "rm" && clean:
			if name, why := r.removes(c, cwd, walk); name != "" {
				return name, why
			}
			continue
		}
		if name, why := r.command(c, cwd, walk); name != "" {
			return name, why
		}
	}
	return r.dropped()
}

// dropped: without the commands that empty the cache what was there before the step would stay.
func (r *cacheReaders) dropped() (name, why string) {
	if len(r.drops) == 0 {
		return "", ""
	}
	text := r.drops[0].text()
	if !r.u.official {
		return "cleaned", "`" + text + "` may also remove what " + r.u.image + " has in the cache"
	}
	for _, m := range r.mounts {
		if m.kind == "bind" {
			continue
		}
		if program := r.m.before(r.st, r.i, r.u.tool, m.target, true); program != "" {
			return "cleaned", "`" + text + "` may also remove what `" + program + "`, in an earlier step, left in the cache"
		}
	}
	return "", ""
}

// removes looks at an rm of the step itself: a mount point cannot be removed, and a cache that is emptied is none.
func (r *cacheReaders) removes(c script.Command, cwd []string, walk *shellWalk) (name, why string) {
	drop := cacheDrop{command: c}
	operands := 0
	for _, w := range c.Operands() {
		operands++
		for _, p := range walk.paths(w, cwd) {
			switch r.nearest(p) {
			case pathApart:
				continue
			case pathAbove:
				return "removed", "`" + r.text(c) + "` removes a directory above the cache"
			}
			// Other patterns also match what the base image has there, a lock and an empty directory.
			if !strings.HasSuffix(w.Raw, "/*.deb") && !strings.HasSuffix(w.Raw, "/*.bin") {
				return "removed", "`" + r.text(c) + "` would empty a cache mount; without it there would be one"
			}
			if !slices.Contains(drop.operands, w.Raw) {
				drop.operands = append(drop.operands, w.Raw)
			}
		}
	}
	if len(drop.operands) == operands {
		drop.operands = nil
		r.drops = append(r.drops, drop)
	} else if len(drop.operands) > 0 {
		r.drops = append(r.drops, drop)
	}
	return "", ""
}

// fills and tools: the command is one that fills the cache, one of the tool at all.
func (r *cacheReaders) fills(c script.Command) bool {
	return slices.ContainsFunc(r.u.commands, func(d script.Command) bool { return d.Start == c.Start && d.End == c.End && r.tools(c) })
}

func (r *cacheReaders) tools(c script.Command) bool {
	return slices.Contains(r.u.tool.programs, c.Name()) || slices.Contains(r.u.tool.kin, c.Name())
}

func (r *cacheReaders) text(c script.Command) string { return cacheDrop{command: c}.text() }

// offline: a command of the tool that makes do with what is in the cache, or puts into it what is nowhere else. Without a network every program
// that may run the tool does.
func (r *cacheReaders) offline(c script.Command, none bool) (name, why string) {
	t := r.u.tool
	if r.tools(c) {
		for _, flag := range t.offline {
			if strings.HasPrefix(flag, "-") && c.HasFlag(flag) {
				return "offline", "`" + r.text(c) + "` needs what is in the cache"
			}
		}
		if t.state != nil && t.state(c) {
			return "state", "`" + r.text(c) + "` puts into the cache what cannot be downloaded again"
		}
	}
	if none && !plainProgram(c) {
		return "offline", "without a network `" + programOf(c) + "` may need what is in the cache"
	}
	return "", ""
}

// step looks at another step of the stage, of those that it builds on, and of those that build on it.
func (r *cacheReaders) step(st *plan.Stage, i int, later bool) (name, why string) {
	s, t := st.Steps[i], r.u.tool
	at := r.m.flow(st)[i]
	switch c := s.Cmd.(type) {
	case *instructions.RunCommand:
		sc, err := r.m.script(st, i)
		if err != nil {
			return "unknown-step", "cannot tell what another step runs (" + err.Error() + ")"
		}
		if name, why := r.words(sc.Text); name != "" {
			return name, why
		}
		none := later && instructions.GetNetwork(c) == instructions.NetworkNone
		walk := r.walk(st, i)
		for _, c := range sc.Commands() {
			cwd := walk.next(c)
			if name, why := r.offline(c, none); name != "" {
				return name, why
			}
			if r.tools(c) && starts(c, t.asks) && !is(c, t.empties) {
				return "named", "`" + r.text(c) + "` looks into the cache"
			}
			if later && t.strict && !r.tools(c) && !plainProgram(c) {
				return "later-reader", "`" + programOf(c) + "`, in a later step, may read what was downloaded"
			}
			if r.tools(c) && (slices.Contains(t.programs, c.Name()) && t.fills(c) || is(c, t.empties)) {
				continue
			}
			if name, why := r.command(c, cwd, walk); name != "" {
				return name, why
			}
		}
	case *instructions.VolumeCommand:
		for _, v := range c.Volumes {
			v, ok := at.Expand(v)
			if !ok || r.nearest(v) != pathApart {
				return "volume", "VOLUME " + v + " holds the cache"
			}
		}
	case *instructions.WorkdirCommand:
		dir, ok := at.Expand(c.Path)
		if near := r.nearest(dir); ok && path.IsAbs(dir) && (near == pathSame || near == pathBelow) {
			return "named", "WORKDIR " + dir + " is in the cache"
		}
	case *instructions.CopyCommand:
		if name, why := r.linked(st, i, later, c.DestPath); name != "" {
			return name, why
		}
		return r.copied(s, &at, c.SourcePaths, c.DestPath, c.From != "" || len(c.SourceContents) > 0)
	case *instructions.AddCommand:
		if name, why := r.linked(st, i, later, c.DestPath); name != "" {
			return name, why
		}
		return r.copied(s, &at, c.SourcePaths, c.DestPath, true)
	case *instructions.EnvCommand:
		for _, kv := range c.Env {
			if slices.Contains(t.vars, kv.Key) {
				return "", "" // the place follows it
			}
		}
		return r.mentions(s)
	case *instructions.ArgCommand, *instructions.LabelCommand, *instructions.ExposeCommand, *instructions.MaintainerCommand, *instructions.StopSignalCommand, *instructions.UserCommand:
	default:
		return r.mentions(s)
	}
	return "", ""
}

// mentions finds text that names the cache: its paths, the tool's words for it, what switches the network off.
func (r *cacheReaders) mentions(s *plan.Step) (name, why string) {
	if token := r.token(s.Text); token != "" {
		return "named", "another instruction has " + token + " in it"
	}
	return r.words(s.Text)
}

// words finds the tool's words, and what keeps it off the network.
func (r *cacheReaders) words(text string) (name, why string) {
	for _, word := range r.u.tool.names {
		if strings.Contains(text, word) {
			return "named", "another instruction has " + word + " in it"
		}
	}
	for _, word := range r.u.tool.offline {
		if !strings.HasPrefix(word, "-") && strings.Contains(text, word) {
			return "offline", "another instruction has " + word + " in it"
		}
	}
	return "", ""
}

// token is a path in the cache that the text has somewhere in it.
func (r *cacheReaders) token(text string) string {
	for _, token := range strings.FieldsFunc(text, func(c rune) bool { return strings.ContainsRune(" \t\r\n\"'=:,;()[]{}<>|&`", c) }) {
		p := token
		for _, home := range []string{"~/", "$HOME/"} {
			if rest, ok := strings.CutPrefix(token, home); ok {
				p = path.Join(r.u.home, rest)
			}
		}
		if near := r.nearest(p); near == pathSame || near == pathBelow {
			return token
		}
	}
	return ""
}

// copied: what a COPY puts above the cache may reach into it.
func (r *cacheReaders) copied(s *plan.Step, at *plan.State, sources []string, dest string, opaque bool) (name, why string) {
	if name, why := r.mentions(s); name != "" {
		return name, why
	}
	d, ok := at.Expand(dest)
	if !path.IsAbs(d) {
		d, ok = path.Join(at.Dir, d), ok && at.DirOK
	}
	if !ok {
		return "copied", s.Cmd.Name() + " to " + dest + ", which is not known, may reach into the cache"
	}
	near := r.nearest(d)
	if near == pathSame || near == pathBelow {
		return "copied", "an instruction copies into the cache"
	}
	if near == pathApart {
		return "", ""
	}
	for _, source := range sources {
		if opaque {
			return "copied", "what is copied to " + d + " may reach into the cache"
		}
		for _, m := range r.mounts {
			rel := strings.TrimPrefix(strings.TrimPrefix(m.target, path.Clean(d)), "/")
			first, _, _ := strings.Cut(rel, "/")
			if p, known := r.m.w.Facts.Context.Lookup(source); known && p.Exists && p.Mode.IsRegular() && path.Base(path.Clean(source)) != first {
				continue
			}
			p, known := r.m.w.Facts.Context.Lookup(path.Join(source, first))
			if !known || p.Exists || path.Base(path.Clean(source)) == first || strings.ContainsAny(source, "*?[$") {
				return "copied", "what is copied to " + d + " may reach into the cache, for all that is known of the context"
			}
		}
	}
	return "", ""
}

// linked: what a COPY puts behind a symbolic link of the base image may be in the cache, and the mount would hide it from the step. It matters where
// what the image has there does.
func (r *cacheReaders) linked(st *plan.Stage, i int, later bool, dest string) (name, why string) {
	if later || r.u.tool.anyBase || r.u.official {
		return "", ""
	}
	at := &r.m.flow(st)[i]
	d, ok := at.Expand(dest)
	if !path.IsAbs(d) {
		d, ok = path.Join(at.Dir, d), ok && at.DirOK
	}
	if !ok {
		return "", "" // copied says so
	}
	links := linkFinder{plan: r.m.w.Plan, facts: r.m.w.Facts}
	if why := links.through(st, i, path.Clean(d)); why != "" {
		return "copied-behind-link", why + ": what is copied may be in the cache"
	}
	return "", ""
}

// takes: an instruction of any stage that takes files from one of the family.
func (r *cacheReaders) takes(st *plan.Stage, i int, s *plan.Step, family []*plan.Stage) (name, why string) {
	p := r.m.w.Plan
	switch c := s.Cmd.(type) {
	case *instructions.CopyCommand:
		if from := p.Stage(c.From); c.From == "" || from == nil || !slices.Contains(family, from) {
			return "", ""
		}
		for _, source := range c.SourcePaths {
			v, ok := r.m.flow(st)[i].Expand(source)
			if !ok || r.nearest(path.Join("/", v)) != pathApart {
				return "copied", "COPY --from=" + c.From + " " + source + " takes the cache along"
			}
		}
	case *instructions.OnbuildCommand:
		if strings.Contains(strings.ToLower(c.Expression), "from=") {
			return "copied", "ONBUILD " + c.Expression + " may take the cache along"
		}
	case *instructions.RunCommand:
		ours := func(m *instructions.Mount) bool {
			from := p.Stage(m.From)
			return m.From != "" && from != nil && slices.Contains(family, from)
		}
		if !slices.ContainsFunc(instructions.GetMounts(c), ours) { // from= is known before variables are
			return "", ""
		}
		mounts, err := r.m.mounts(s, &r.m.flow(st)[i])
		if err != nil {
			return "unknown-step", "the mounts of another step depend on a value that is not known"
		}
		for _, m := range mounts {
			if ours(m) && r.nearest(path.Join("/", m.Source)) != pathApart {
				return "copied", "a mount from " + m.From + " shows the cache to another step"
			}
		}
	}
	return "", ""
}

// nearest is how a path relates to the mounts' targets.
func (r *cacheReaders) nearest(p string) pathRelation {
	for _, m := range r.mounts {
		if m.kind == "bind" {
			continue
		}
		if near := relate(p, m.target); near != pathApart {
			return near
		}
	}
	return pathApart
}
