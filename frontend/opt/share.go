package opt

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/optbuild/optbuild/frontend/plan"
)

// ShareStages is the name of the pass of this file.
const ShareStages = "share-stages"

// shareStages lets stages that give the same to the images of all platforms run on the build platform, once, instead of under emulation and once for each.
//
// Before, built with --platform=linux/amd64,linux/arm64:
//
//	FROM node:22 AS modules
//	WORKDIR /app
//	COPY package.json package-lock.json ./
//	RUN npm ci --omit=dev
//	FROM node:22
//	COPY --from=modules /app/node_modules /app/node_modules
//
// After, if the lock file has no package that depends on the processor or runs a script:
//
//	FROM --platform=$BUILDPLATFORM node:22 AS modules
//	...
//
// What is shared is decided in one of three ways, which the remark names:
//
//   - text: what other stages take comes from the build context, from addresses, or from programs that do nothing but fetch, unpack, move and edit text
//     (shareprograms.go), and nothing of it is the base image's (crosspaths.go). No processor has a part in it.
//   - lock: the same, and `npm ci` of a lock file that says that no package differs (sharenpm.go). It can't say all: what of npm's work is machine code is looked for
//     in the images, see Shared.
//   - asked: the user says so, with --share-stage or a pragma (shareasked.go). This is looked after in the same way.
//
// A stage that asks for TARGETARCH, or for anything else that BuildKit sets for each platform, runs once for each whatever it does: it is none of this pass. cross-build, which comes
// before, has taken those that need no emulation.
//
// Why no loops, conditions and substitutions? What a command is given would no longer stand in the text. Why not npm run build? It runs what the project wrote.
func shareStages(w *Work) {
	if !w.Options.Fix && !crosses(w.Facts) {
		return
	}
	for i := range w.Plan.Stages {
		st := w.Plan.Stages[i]
		if base, _, ok := w.Plan.Resolve(st, w.Facts); base != nil || !ok {
			continue // comes with its base
		}
		c := newSharing(w.Plan, w.Facts, st, w.Options)
		if asked := c.asked(); asked != nil {
			c.shareAsked(w, asked)
			continue
		}
		if !c.considered() {
			continue
		}
		r := c.refusal(w.Options.Fix)
		if r == nil && c.locked && w.Options.Fix {
			r = &crossRefusal{c.root.From, "lock-may-change", "the lock file proves it today, a Dockerfile is kept for longer; if it will stay so, write FROM --platform=$BUILDPLATFORM", nil}
		}
		if r == nil && c.locked && !w.Options.Checked {
			r = &crossRefusal{c.root.From, "unchecked", "what npm compiles though its lock file says nothing of it would not be found: this engine does not look for it", nil}
		}
		if r != nil {
			if r.name != "target" {
				args := r.args
				if c.refusalAsked(c.root) == nil {
					args = append(slices.Clone(args), Arg{"could-share", c.root.Name()})
				}
				w.Missed(r.step, r.name, r.message+c.advice(), args...)
			}
			continue
		}
		by := ByText
		if c.locked {
			by = ByLock
		}
		c.share(w, by)
	}
}

// How it is known that a stage gives the same to all.
const (
	ByText = "text"
	ByLock = "lock"
	ByUser = "asked"
)

// newSharing is a stage, with those that build on it, that is to give the same to all platforms.
func newSharing(p *plan.Plan, f *plan.Facts, root *plan.Stage, o Options) *crossing {
	c := newCrossing(p, f, root)
	c.once, c.options = true, o
	return c
}

// considered reports whether the pass has anything to say about a stage: it runs something, others copy from it, and neither the user nor cross-build has settled it.
func (c *crossing) considered() bool {
	if c.root.Def.Platform != "" || c.kind == compiles || strings.EqualFold(c.root.Def.BaseName, "scratch") {
		return false
	}
	if t := c.plan.Target(c.facts); t != nil && slices.Contains(c.family, t) {
		return false
	}
	runs, read := false, false
	for _, st := range c.plan.Stages {
		for _, s := range st.Steps {
			if slices.Contains(c.family, st) {
				runs = runs || isRun(s)
				continue
			}
			read = read || slices.ContainsFunc(plan.References(s.Cmd), c.of)
		}
	}
	return runs && read
}

// advice is what a person could do who knows more.
func (c *crossing) advice() string {
	if c.kind != bundles {
		return ""
	}
	return "; if what is copied from this stage is the same everywhere: --share-stage " + c.root.Name()
}

// share puts the stage on the build platform.
func (c *crossing) share(w *Work, by string) {
	root, err := w.Plan.NewFrom(onBuildPlatform(c.root.From.Text), c.root)
	if err != nil {
		panic(err)
	}
	subject := "stage " + c.root.Name()
	if st := c.asked(); st != nil && st != c.root {
		subject += ", from which " + st.Name() + " starts,"
	}
	message := subject + " gives the same to all platforms and runs once, on the build platform"
	switch by {
	case ByLock:
		message += ": no package of its lock file depends on the processor or runs a script"
	case ByUser:
		message += ", as was asked for"
	}
	w.Do(Change{
		Steps: []*plan.Step{c.root.From}, Name: "run-once", Message: message, Args: []Arg{{"stage", c.root.Name()}, {"by", by}}, Keeps: Files,
		Apply: func() { w.Plan.Stages[slices.Index(w.Plan.Stages, c.root)] = root },
	})
}

// stepOnce refuses what does not come to the same for all platforms, though it may run on any.
func (c *crossing) stepOnce(s *plan.Step, at *plan.State) *crossRefusal {
	if r := namesPlatform(s); r != nil {
		return r
	}
	switch cmd := s.Cmd.(type) {
	case *instructions.CopyCommand:
		if cmd.Parents {
			return &crossRefusal{s, "parents", "COPY --parents makes directories on the way", nil}
		}
		if cmd.From != "" {
			if r := c.from(s, cmd.From); r != nil {
				return r
			}
		}
		return homes(s, cmd.DestPath, at)
	case *instructions.AddCommand:
		return homes(s, cmd.DestPath, at)
	case *instructions.EnvCommand:
		for _, kv := range cmd.Env {
			if r := c.variable(s, kv.Key, at); r != nil {
				return r
			}
		}
	case *instructions.ArgCommand:
		for _, a := range cmd.Args {
			if r := c.variable(s, a.Key, at); r != nil {
				return r
			}
		}
	case *instructions.RunCommand:
		mounts, err := mountsOf(c.plan, s, at)
		if err != nil {
			return nil // refused by runs
		}
		for _, m := range mounts {
			if m.Type == instructions.MountTypeBind { // with links of the context, or of a stage
				c.made = append(c.made, made{path: absolute(at.Dir, m.Target), origin: archive})
			}
			if m.From == "" {
				continue
			}
			if r := c.from(s, m.From); r != nil {
				return r
			}
		}
		return c.runsOnce(s, cmd, at)
	}
	return nil
}

// platformNames are arguments that BuildKit sets for each platform, or for the one that builds.
var platformNames = []string{
	"TARGETARCH", "TARGETPLATFORM", "TARGETVARIANT", "TARGETOS", "TARGETOSVERSION", "BUILDARCH", "BUILDPLATFORM", "BUILDVARIANT", "BUILDOS", "BUILDOSVERSION",
}

// namesPlatform refuses a step in which one of them stands, wherever and whatever for.
func namesPlatform(s *plan.Step) *crossRefusal {
	for _, name := range platformNames {
		if mentions(s, name) {
			return &crossRefusal{s, "argument", "it speaks of " + name + ", which is another one for each platform", []Arg{{"argument", name}}}
		}
	}
	return nil
}

// homes refuses files that are copied to where programs look for what to do.
func homes(s *plan.Step, dest string, at *plan.State) *crossRefusal {
	dir, ok := at.Expand(dest)
	if !ok || !at.DirOK {
		return nil // refused by puts
	}
	if p := homeFile(absolute(at.Dir, dir)); p != "" {
		return &crossRefusal{s, "home", "programs may read what is copied to " + p + ", a home directory", []Arg{{"path", p}}}
	}
	return nil
}

// from refuses a stage or image from which files are taken, unless it is on the build platform as well.
func (c *crossing) from(s *plan.Step, name string) *crossRefusal {
	st := c.plan.Stage(name)
	if st == nil {
		return &crossRefusal{s, "other-image", "files of " + name + " are those of the image for each platform", []Arg{{"image", name}}}
	}
	if slices.Contains(c.family, st) || c.sameForAll(st, nil) {
		return nil
	}
	return &crossRefusal{s, "other-stage", "files of stage " + st.Name() + " may be others for each platform", []Arg{{"stage", st.Name()}}}
}

// sameForAll reports whether a stage outside of the family runs on the build platform, is not told for which platform, and takes files only of such stages. Those below are on the way.
func (c *crossing) sameForAll(st *plan.Stage, below []*plan.Stage) bool {
	if slices.Contains(below, st) || strings.Trim(rootOf(c.plan, c.facts, st).Def.Platform, "${}") != "BUILDPLATFORM" {
		return false
	}
	below = append(below, st)
	for ; st != nil; st, _, _ = c.plan.Resolve(st, c.facts) {
		for _, s := range st.Steps {
			if namesPlatform(s) != nil || isTriggering(s) {
				return false
			}
			for _, name := range plan.References(s.Cmd) {
				if from := c.plan.Stage(name); from == nil || !c.sameForAll(from, below) {
					return false
				}
			}
		}
	}
	return true
}

func isTriggering(s *plan.Step) bool {
	_, ok := s.Cmd.(*instructions.OnbuildCommand)
	return ok
}

// Shared is a stage that the pass has put on the build platform, for whoever looks at what came of it.
type Shared struct {
	Stage string // its name
	By    string // what was relied upon: ByText, ByLock or ByUser
}

// SharedStages are those of a run's remarks.
func SharedStages(remarks []Remark) (list []Shared) {
	for _, r := range remarks {
		if r.Kind == Passed && r.Pass == ShareStages {
			s := Shared{}
			for _, a := range r.Args {
				switch a.Key {
				case "stage":
					s.Stage = a.Value
				case "by":
					s.By = a.Value
				}
			}
			list = append(list, s)
		}
	}
	return list
}

// ShareableStages are those of a run's remarks that the pass refused, and that would be shared if the user asked for it.
func ShareableStages(remarks []Remark) (list []string) {
	for _, r := range remarks {
		for _, a := range r.Args {
			if r.Kind == Missed && r.Pass == ShareStages && a.Key == "could-share" {
				list = append(list, a.Value)
			}
		}
	}
	return list
}

// SharedStage finds a stage by its name, or by its number in the user's file; nil if there is none.
func SharedStage(p *plan.Plan, name string) *plan.Stage {
	for _, st := range slices.Backward(p.Stages) {
		if strings.EqualFold(st.Name(), name) {
			return st
		}
	}
	return nil
}

// MissingShared is the first name of --share-stage that no stage has, with those that there are.
func MissingShared(p *plan.Plan, o Options) error {
	for _, name := range o.Share {
		if SharedStage(p, name) == nil {
			names := stageNames(p.Stages)
			if len(names) == 0 {
				return fmt.Errorf("%s has no stage %q to share: no stage has a name (FROM image AS name)", p.Name, name)
			}
			return fmt.Errorf("%s has no stage %q to share: want one of %s", p.Name, name, strings.Join(names, ", "))
		}
	}
	return nil
}
