package opt

import (
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/script"
)

// settings are variables of the go command that do not change what is made of a package, or change it in the same way on every machine. Of GOFLAGS
// the value is looked at. Not here: GOROOT, GOEXPERIMENT, GOAMD64, GOARM64, GOTOOLDIR and all that is not known.
var settings = []string{
	"CGO_ENABLED", "GO111MODULE", "GOARCH", "GOAUTH", "GOBIN", "GOCACHE", "GOFLAGS", "GOGC", "GOINSECURE", "GOLANG_VERSION", "GOMAXPROCS", "GOMEMLIMIT", "GOMODCACHE", "GONOPROXY", "GONOSUMCHECK",
	"GONOSUMDB", "GOOS", "GOPATH", "GOPRIVATE", "GOPROXY", "GOSUMDB", "GOTOOLCHAIN", "GOVCS", "GOWORK",
}

// golang checks a go command.
func (r *running) golang(cmd script.Command) *crossRefusal {
	args := cmd.Args()
	sub := func(i int) string {
		if i < len(args) && args[i].Literal {
			return args[i].Value
		}
		return ""
	}
	for _, v := range r.at.Env {
		if goSetting(v.Name) && !slices.Contains(settings, v.Name) {
			return r.no("setting", v.Name+" changes what go build makes", cmd)
		}
	}
	for _, a := range cmd.Assigns {
		if goSetting(a.Name) && !slices.Contains(settings, a.Name) {
			return r.no("setting", a.Name+" changes what go build makes", cmd)
		}
	}
	flags, ok := r.setting(cmd, "GOFLAGS")
	if !ok || slices.ContainsFunc(strings.Fields(flags), func(f string) bool { return !buildFlag(f, "") }) {
		return r.no("goflags", "GOFLAGS may have flags that cross compiling changes", cmd)
	}
	switch sub(0) {
	case "build":
		return r.build(cmd)
	case "install":
		return r.no("go-install", "go install puts programs for another platform elsewhere: write go build -o", cmd)
	case "mod":
		if s := sub(1); s == "download" || s == "verify" || s == "tidy" || s == "vendor" {
			return nil
		}
	case "version":
		if len(args) == 1 && !cmd.Piped && !cmd.Subshell && len(cmd.Redirects) == 0 { // it prints the platform
			return nil
		}
	case "clean":
		return nil
	case "work":
		if s := sub(1); s == "sync" || s == "vendor" {
			return nil
		}
	}
	return r.no("go-command", "go "+sub(0)+" runs programs, or answers, for the platform that it runs on", cmd)
}

func goSetting(name string) bool {
	return strings.HasPrefix(name, "GO") || strings.HasPrefix(name, "CGO_")
}

// setting is the value that a command sees of a variable, "" if it is not set.
func (r *running) setting(cmd script.Command, name string) (value string, known bool) {
	for _, a := range slices.Backward(cmd.Assigns) {
		if a.Name == name {
			return a.Value.Expand(r.lookup)
		}
	}
	return r.lookup(name)
}

// build checks a go build, and notes it.
func (r *running) build(cmd script.Command) *crossRefusal {
	b := r.newBuild(cmd)
	cgo, known := r.setting(cmd, "CGO_ENABLED")
	if !known || cgo != "0" {
		if known && cgo == "" {
			return r.no("cgo", "go build may use C where it runs natively: set CGO_ENABLED=0 if the program needs none", cmd)
		}
		return r.no("cgo", "go build uses C, or may: CGO_ENABLED is not 0", cmd)
	}
	if b.os != "" && b.os != markOS && b.os != "linux" {
		return r.no("goos", "GOOS is not that of the image", cmd)
	}
	switch b.arch {
	case "":
		b.prefix = "GOARCH=$TARGETARCH "
		if b.os == "" {
			b.prefix = "GOOS=$TARGETOS " + b.prefix
		}
	case markArch:
		if b.os == "" {
			b.prefix = "GOOS=$TARGETOS "
		}
	default:
		return r.no("goarch", "GOARCH is set, and not to $TARGETARCH", cmd)
	}
	if cmd.Start != cmd.End && r.inner(cmd) {
		return r.no("nested", "go build is in another shell", cmd)
	}
	flag := ""
	for _, w := range cmd.Args()[1:] {
		v, ok := w.Expand(r.lookup)
		switch {
		case flag != "":
			if !ok && !(linker(flag) && harmless(w.Raw)) || ok && !buildFlag(flag, v) {
				return r.no("flag", "the value of "+flag+" may change with the platform", cmd)
			}
			flag = ""
		case !ok && strings.HasPrefix(w.Raw, "-"):
			name, _, has := strings.Cut(w.Raw, "=")
			if !has || !linker(name) || !harmless(w.Raw) {
				return r.no("flag", "the value of "+name+" is not known", cmd)
			}
		case !ok:
			return r.no("flag", "which package is built is not clear", cmd)
		case strings.HasPrefix(v, "-"):
			if takesNext(v) {
				flag = v
			} else if !buildFlag(v, "") {
				return r.no("flag", "of go build "+v+" it is not known that it makes the same on every platform", cmd)
			}
		}
	}
	if b.out != "" {
		r.c.made = append(r.c.made, made{path: b.out, origin: file})
	}
	r.c.builds = append(r.c.builds, b)
	return nil
}

// inner reports whether the command is part of the text of another one's words.
func (r *running) inner(cmd script.Command) bool {
	return !strings.Contains(r.sc.Text[cmd.Start:cmd.End], "go") || slices.ContainsFunc(r.sc.Commands(), func(o script.Command) bool {
		return o.Start == cmd.Start && o.End == cmd.End && o.Name() != "go"
	})
}

// valued are flags of go build that have a value; bare those that have none or =true.
var (
	valued = []string{"-o", "-ldflags", "-gcflags", "-asmflags", "-tags", "-mod", "-modfile", "-p", "-installsuffix", "-pgo", "-buildmode"}
	bare   = []string{"-a", "-v", "-x", "-trimpath", "-work", "-buildvcs", "-modcacherw", "-json"}
)

func takesNext(flag string) bool {
	return slices.Contains(valued, single(flag))
}

func single(flag string) string {
	if strings.HasPrefix(flag, "--") {
		return flag[1:]
	}
	return flag
}

// buildFlag reports whether a flag is known to mean the same for every machine that compiles.
func buildFlag(flag, value string) bool {
	name, v, has := strings.Cut(single(flag), "=")
	if has {
		value = v
	}
	switch {
	case slices.Contains(bare, name):
		return true
	case name == "-buildmode":
		return value == "exe" || value == "default"
	case linker(name):
		return harmless(value)
	}
	return slices.Contains(valued, name)
}

func linker(flag string) bool {
	name := single(flag)
	return name == "-ldflags" || name == "-gcflags" || name == "-asmflags"
}

// harmless reports whether flags of the linker leave the work to Go's own.
func harmless(flags string) bool {
	for _, word := range []string{"linkmode", "extld=", "extld ", "extar", "-race", "-msan", "-asan", "-plugin", "installsuffix"} {
		if strings.Contains(flags, word) {
			return false
		}
	}
	return true
}

// newBuild is what a go build says of where its result goes and for what it is.
func (r *running) newBuild(cmd script.Command) *goBuild {
	b := &goBuild{step: r.s, at: cmd.Start}
	var known bool
	if b.arch, known = r.setting(cmd, "GOARCH"); !known {
		b.arch = unknownArch
	}
	if b.os, known = r.setting(cmd, "GOOS"); !known {
		b.os = unknownArch
	}
	if w, ok := cmd.Flag("-o", "--o"); ok {
		if p, ok := r.path(w); ok {
			b.out = p
		}
	}
	return b
}

// buildsIn are the go builds of a step, whatever else it does.
func (c *crossing) buildsIn(s *plan.Step, at *plan.State) (builds []*goBuild) {
	run, ok := s.Cmd.(*instructions.RunCommand)
	if !ok {
		return nil
	}
	sc, err := scriptOf(run, at)
	if err != nil {
		return nil
	}
	r := newRunning(c, s, sc, at)
	for _, cmd := range sc.Commands() {
		if args := cmd.Args(); cmd.Name() == "go" && len(args) > 0 && args[0].Value == "build" {
			builds = append(builds, r.newBuild(cmd))
		}
	}
	return builds
}

// goBuild is one `go build`.
type goBuild struct {
	step   *plan.Step
	at     uint   // where the command starts in the script's text
	prefix string // what to put there
	arch   string // GOARCH as it is: "" for none, markArch for the target's, a literal, or unknownArch
	os     string
	out    string // -o, absolute; "" if it is not known
}

const unknownArch = "\x00unknown"
