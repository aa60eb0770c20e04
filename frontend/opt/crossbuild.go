package opt

import (
	"maps"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/frontend/plan"
)

// crossBuild lets stages whose result does not depend on the machine that makes it run on the build platform, once for all platforms, instead of
// under emulation: those that compile Go without C, and those that only download.
//
// Before, built with --platform=linux/amd64,linux/arm64:
//
//	FROM golang:1.22 AS build
//	WORKDIR /src
//	COPY . .
//	RUN go mod download
//	RUN CGO_ENABLED=0 go build -trimpath -o /out/app ./cmd/app
//	FROM scratch
//	COPY --from=build /out/app /app
//
// After:
//
//	FROM --platform=$BUILDPLATFORM golang:1.22 AS build
//	WORKDIR /src
//	COPY . .
//	RUN go mod download
//	ARG TARGETOS TARGETARCH
//	RUN GOOS=$TARGETOS GOARCH=$TARGETARCH CGO_ENABLED=0 go build -trimpath -o /out/app ./cmd/app
//	FROM scratch
//	COPY --from=build /out/app /app
//
// Two things make that the same image. First, what goes on from the stages is what they made themselves, by programs that are known to write the same
// on every platform (crossprograms.go), and nothing of the base image, whose files differ (crosspaths.go). Second, Go's compiler and linker write the
// same bytes whatever machine they run on. Measured with Go 1.26.8, a program with net/http, crypto, embed and assembly, for linux/arm64:
// by the arm64 toolchain under qemu-user and by the amd64 toolchain, both at /usr/local/go: with no flags, -trimpath, -ldflags "-s -w -X ...",
// -ldflags=-buildid= and -buildmode=pie the binaries were equal to the byte, build IDs included (and the first took 227 s under emulation, 32 s
// without, on a busy machine of two cores). So were those of a smaller program and Go 1.25.0, with no flags and -trimpath.
// For older versions it is documented: since 1.21 the toolchain itself is reproducible.
//
// Without CGO_ENABLED=0 it is not the same: natively, cgo is on where gcc is found (net and os/user then use the C library), and cross compiling
// switches it off by default. A stage that the user has put on the build platform and in which `go build` is not told what for is warned about: stock
// BuildKit puts its binary into the images of all platforms.
//
// Why not npm? What `npm run build` writes is up to programs that this package does not know, some of which come as native modules. share-stages has more to say of it.
func crossBuild(w *Work) {
	for i := range w.Plan.Stages {
		st := w.Plan.Stages[i]
		if base, _, ok := w.Plan.Resolve(st, w.Facts); base != nil && ok {
			continue // comes with its base
		}
		c := newCrossing(w.Plan, w.Facts, st)
		if st.Def.Platform != "" {
			c.chosen(w)
			continue
		}
		c.hardCoded(w)
		if !w.Options.Fix && !crosses(w.Facts) || c.kind == nothing {
			continue
		}
		if r := c.refusal(w.Options.Fix); r != nil {
			if c.kind != downloads && c.kind != bundles { // of which share-stages has more to say
				w.Missed(r.step, r.name, r.message, r.args...)
			}
			continue
		}
		c.rewrite(w)
	}
}

// kind is what a stage, with those that build on it, is to this pass.
type kind int

const (
	nothing   kind = iota // no business of this pass
	downloads             // fetches and unpacks
	compiles              // runs go build or go install, or starts from the golang image
	bundles               // runs a package manager of JavaScript
)

// crossing is a stage that starts from an image, with the stages that build on it.
type crossing struct {
	plan   *plan.Plan
	facts  *plan.Facts // in which TARGETOS and TARGETARCH have the values markOS and markArch
	root   *plan.Stage
	family []*plan.Stage
	given  map[string]string // build arguments
	kind   kind
	builds []*goBuild
	made   []made
	ask    *[]string // nil, or where to note the paths of the context that would have to be known; then none of them is taken for a link

	// Of the pass share-stages alone.
	once    bool // the stage must come to the same for all platforms, not only on all machines
	options Options
	written []string // paths that commands of RUNs may have written, and those above which they may have
	locked  bool     // it rests on a lock file
}

// Values that stand for "whatever the target's is".
const markOS, markArch = "\x00os", "\x00arch"

// crossRefusal is why a stage stays as it is.
type crossRefusal struct {
	step          *plan.Step
	name, message string
	args          []Arg
}

func newCrossing(p *plan.Plan, f *plan.Facts, root *plan.Stage) *crossing {
	marked := *f
	marked.BuildArgs = maps.Clone(f.BuildArgs)
	if marked.BuildArgs == nil {
		marked.BuildArgs = map[string]string{}
	}
	marked.BuildArgs["TARGETOS"], marked.BuildArgs["TARGETARCH"] = markOS, markArch
	c := &crossing{plan: p, facts: &marked, root: root, given: f.BuildArgs}
	for _, st := range p.Stages {
		if base, _, ok := p.Resolve(st, f); st == root || ok && base != nil && slices.Contains(c.family, base) {
			c.family = append(c.family, st)
		}
	}
	if _, name, ok := p.Resolve(root, f); ok {
		if short, ok := official(name, false); ok && short == "golang" {
			c.kind = compiles
		}
	}
	c.each(func(_ *plan.Stage, s *plan.Step, at *plan.State) bool {
		run, ok := s.Cmd.(*instructions.RunCommand)
		if !ok {
			return true
		}
		sc, err := scriptOf(run, at)
		if err != nil {
			return true
		}
		for _, cmd := range sc.Commands() {
			switch cmd.Name() {
			case "go":
				if sub := cmd.Args(); len(sub) > 0 && (sub[0].Value == "build" || sub[0].Value == "install") {
					c.kind = compiles
				} else if c.kind == nothing {
					c.kind = downloads
				}
			case "npm", "yarn", "pnpm", "bun":
				if c.kind != compiles {
					c.kind = bundles
				}
			case "curl", "wget", "git":
				if c.kind == nothing {
					c.kind = downloads
				}
			}
		}
		return true
	})
	return c
}

// each calls f with the family's steps until it returns false.
func (c *crossing) each(f func(*plan.Stage, *plan.Step, *plan.State) bool) {
	for _, st := range c.family {
		states := c.plan.Flow(st, c.facts)
		for i, s := range st.Steps {
			if !f(st, s, &states[i]) {
				return
			}
		}
	}
}

// crosses reports whether something is built for another platform than the one that builds.
func crosses(f *plan.Facts) bool {
	return slices.ContainsFunc(f.Targets, func(p ocispecs.Platform) bool { return !same(p, f.Build) })
}

func same(p, q ocispecs.Platform) bool {
	return platforms.FormatAll(platforms.Normalize(p)) == platforms.FormatAll(platforms.Normalize(q))
}

// refusal checks everything that the rewrite rests on.
func (c *crossing) refusal(fix bool) *crossRefusal {
	from := c.root.From
	if t := c.plan.Target(c.facts); t != nil && slices.Contains(c.family, t) {
		if c.kind == bundles {
			c.kind = downloads // it is an application, not assets
		}
		return &crossRefusal{from, "target", "the image is made of the stage that compiles: build in a stage of its own and copy the result", nil}
	}
	if c.kind == bundles && !c.once {
		return &crossRefusal{from, "javascript", "what JavaScript tools write may depend on the platform", nil} // share-stages says it
	}
	for _, p := range append(slices.Clone(c.facts.Targets), c.facts.Build) {
		if p.OS == "" && fix {
			continue
		}
		p = platforms.Normalize(p)
		if c.once && p.OS == "linux" {
			continue
		}
		if p.OS != "linux" || p.Variant != "" || p.Architecture != "amd64" && p.Architecture != "arm64" {
			return &crossRefusal{from, "platform", "Go is only told of linux/amd64 and linux/arm64, not of " + platforms.FormatAll(p), []Arg{{"platform", platforms.FormatAll(p)}}}
		}
	}
	if r := c.file(); r != nil {
		return r
	}
	if r := c.base(); r != nil {
		return r
	}
	if r := c.arguments(); r != nil {
		return r
	}
	var r *crossRefusal
	c.each(func(st *plan.Stage, s *plan.Step, at *plan.State) bool {
		if c.once {
			r = c.stepOnce(s, at)
		}
		if r == nil {
			r = c.step(st, s, at)
		}
		return r == nil
	})
	if r != nil {
		return r
	}
	if c.kind == compiles && len(c.builds) == 0 {
		return &crossRefusal{from, "no-build", "no go build is seen in this stage", nil}
	}
	return c.readers()
}

// file refuses Dockerfiles in which names do not mean what they say.
func (c *crossing) file() *crossRefusal {
	from := c.root.From
	names := stageNames(c.plan.Stages)
	for i, name := range names {
		if slices.ContainsFunc(names[:i], func(n string) bool { return strings.EqualFold(n, name) }) {
			return &crossRefusal{from, "stage-name", "two stages have the name " + name, []Arg{{"stage", name}}}
		}
	}
	if c.plan.Escape != '\\' {
		return &crossRefusal{from, "escape", "the file has another escape character than \\", nil}
	}
	for _, name := range []string{"BUILDPLATFORM", "TARGETARCH", "TARGETOS", "TARGETPLATFORM"} {
		if _, ok := c.given[name]; ok {
			return &crossRefusal{from, "argument", "the build sets " + name + " itself", []Arg{{"argument", name}}}
		}
	}
	return nil
}

// base refuses images of which it is not known that they are the same, but for the programs in them, on the build platform.
func (c *crossing) base() *crossRefusal {
	from := c.root.From
	name, r := c.image()
	if r != nil {
		return r
	}
	if _, ok := official(name, c.once); !ok {
		return &crossRefusal{from, "base", "of " + name + " it is not known what is the same on every platform; of Docker's official " + listed(officials(c.once)) + " images it is", []Arg{{"image", name}}}
	}
	img, r := c.everywhere(name)
	if r != nil {
		return r
	}
	if v := goVersion(name, img); v != "" && !reproducible(v) {
		return &crossRefusal{from, "go-version", "Go makes the same on every machine since version 1.21; this is " + v, []Arg{{"version", v}}}
	}
	return c.triggers(name, img)
}

// listed is "a, b and c".
func listed(names []string) string {
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

// image is the name of the image that the stage starts from, if it is no named context.
func (c *crossing) image() (name string, r *crossRefusal) {
	_, name, ok := c.plan.Resolve(c.root, c.facts)
	if !ok || strings.Contains(name, "\x00") {
		return "", &crossRefusal{c.root.From, "base", "the base image depends on a value that is not known", nil}
	}
	for _, n := range append([]string{name}, stageNames(c.family)...) {
		if c.facts.Replaced(n) {
			return "", &crossRefusal{c.root.From, "named-context", n + " is replaced by a named build context", []Arg{{"context", n}}}
		}
	}
	return name, nil
}

// everywhere refuses an image that is not there, or has another configuration, on the build platform or a target.
func (c *crossing) everywhere(name string) (plan.Image, *crossRefusal) {
	img, ok := c.facts.Images[name]
	built := slices.ContainsFunc(c.facts.Targets, func(p ocispecs.Platform) bool { return same(p, c.facts.Build) })
	if !ok || !img.Build && !built && !(img.Assumed && !strings.Contains(name, "@")) {
		return img, &crossRefusal{c.root.From, "base-platform", "it is not known whether " + name + " is the same image on the build platform", []Arg{{"image", name}}}
	}
	return img, nil
}

func (c *crossing) triggers(name string, img plan.Image) *crossRefusal {
	if len(img.OnBuild) > 0 {
		return &crossRefusal{c.root.From, "base", name + " has ONBUILD triggers", []Arg{{"image", name}}}
	}
	return nil
}

func stageNames(stages []*plan.Stage) (names []string) {
	for _, st := range stages {
		if st.Def.Name != "" {
			names = append(names, st.Def.Name)
		}
	}
	return names
}

// arguments refuses files in which the arguments of platforms are not BuildKit's.
func (c *crossing) arguments() *crossRefusal {
	given := func(s *plan.Step) *crossRefusal {
		if arg, ok := s.Cmd.(*instructions.ArgCommand); ok {
			for _, a := range arg.Args {
				if a.Value != nil && (strings.HasPrefix(a.Key, "TARGET") || strings.HasPrefix(a.Key, "BUILDPLATFORM")) {
					return &crossRefusal{s, "argument", a.Key + " has a value of its own in this file", []Arg{{"argument", a.Key}}}
				}
			}
		}
		return nil
	}
	for _, s := range c.plan.Args {
		if r := given(s); r != nil {
			return r
		}
	}
	var r *crossRefusal
	c.each(func(_ *plan.Stage, s *plan.Step, at *plan.State) bool {
		if r = given(s); r != nil {
			return false
		}
		for name, mark := range map[string]string{"TARGETOS": markOS, "TARGETARCH": markArch} {
			if v, set, _ := at.Lookup(name); set && (!v.Arg || v.Value != mark) {
				r = &crossRefusal{s, "argument", name + " has a value of its own in this file", []Arg{{"argument", name}}}
			}
		}
		return r == nil
	})
	return r
}

// rewrite does it.
func (c *crossing) rewrite(w *Work) {
	type edit struct {
		step     *plan.Step
		arg, run *plan.Step
	}
	var edits []edit
	steps := []*plan.Step{c.root.From}
	for _, st := range c.family {
		declared := map[string]bool{}
		for _, s := range st.Steps {
			text, names, ok := c.prefixed(st, s)
			if !ok {
				w.Missed(s, "text", "the place of go build in this instruction is not clear")
				return
			}
			if len(names) == 0 {
				continue
			}
			e := edit{step: s}
			var err error
			if e.run, err = w.Plan.NewStep(text, s); err != nil {
				panic(err)
			}
			var args []string
			for _, name := range names {
				if at := c.stateAt(st, s); !declared[name] && !isSet(at, name) {
					declared[name] = true
					args = append(args, name)
				}
			}
			if len(args) > 0 {
				if e.arg, err = w.Plan.NewStep("ARG "+strings.Join(args, " "), s); err != nil {
					panic(err)
				}
				e.arg = e.arg.WithLead("")
			}
			edits = append(edits, e)
			steps = append(steps, s)
		}
	}
	root, err := w.Plan.NewFrom(onBuildPlatform(c.root.From.Text), c.root)
	if err != nil {
		panic(err)
	}
	change := Change{
		Steps: steps, Name: "build-platform", Args: []Arg{{"stage", c.root.Name()}}, Keeps: Files,
		Message: "stage " + c.root.Name() + " runs on the build platform, once for all platforms",
	}
	if len(edits) > 0 {
		change.Message = "stage " + c.root.Name() + " runs on the build platform, and go build makes what the target needs"
	}
	change.Apply = func() {
		w.Plan.Stages[slices.Index(w.Plan.Stages, c.root)] = root
		for _, e := range edits {
			for _, st := range w.Plan.Stages {
				if i := slices.Index(st.Steps, e.step); i >= 0 {
					made := []*plan.Step{e.run}
					if e.arg != nil {
						made = []*plan.Step{e.arg, e.run}
					}
					st.Steps = slices.Replace(st.Steps, i, i+1, made...)
				}
			}
		}
	}
	w.Do(change)
}

func isSet(at *plan.State, name string) bool {
	_, set, _ := at.Lookup(name)
	return set
}

func (c *crossing) stateAt(st *plan.Stage, s *plan.Step) *plan.State {
	states := c.plan.Flow(st, c.facts)
	return &states[slices.Index(st.Steps, s)]
}

// onBuildPlatform puts the flag behind FROM.
func onBuildPlatform(text string) string {
	return text[:len("FROM")] + " --platform=$BUILDPLATFORM" + text[len("FROM"):]
}

// prefixed is the text of a RUN with variables put before its `go build`, and the arguments that they come from; no names if there is nothing to do.
func (c *crossing) prefixed(st *plan.Stage, s *plan.Step) (text string, names []string, ok bool) {
	var inserts []insertion
	for _, b := range c.builds {
		if b.step != s || b.prefix == "" {
			continue
		}
		inserts = append(inserts, insertion{b.at, b.prefix})
		for _, name := range []string{"TARGETOS", "TARGETARCH"} {
			if strings.Contains(b.prefix, "$"+name+" ") && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	if len(inserts) == 0 {
		return "", nil, true
	}
	slices.Sort(names)
	slices.Reverse(names)
	text, ok = insertRun(s.Text, c.stateAt(st, s), inserts)
	return text, names, ok
}
