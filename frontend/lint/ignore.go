package lint

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"github.com/optbuild/optbuild/frontend/plan"
)

// ignorable is a kind of file that a build does not need from the context.
type ignorable struct {
	pattern string                // of base names; what is proposed
	dir     bool                  // it is a directory
	beside  []string              // patterns of base names, one of which must be in the same directory
	within  string                // a name that must be in the directory
	made    func() *regexp.Regexp // what the RUNs must have in them: programs that make it anew
	listed  bool                  // only if .gitignore lists it: a checkout does not have it
	quiet   bool                  // proposed along with others, no reason by itself
}

var (
	installs = lazily(`\b(npm|yarn|pnpm|bun)\b`)
	pythons  = lazily(`\b(pip3?|uv|poetry|pipenv)\b`)
	builds   = lazily(`\b(build|make|compile|bundle|package|assemble|publish|install)\b|\b(mvnw?|gradlew?|cargo|dotnet|webpack|vite|tsc)\b`)
)

// ignorables are proposed in this order.
var ignorables = []ignorable{
	{pattern: ".git", dir: true},
	{pattern: ".svn", dir: true},
	{pattern: ".hg", dir: true},
	{pattern: "node_modules", dir: true, made: installs},
	{pattern: "bower_components", dir: true, made: installs},
	{pattern: "__pycache__", dir: true},
	{pattern: "*.pyc"},
	{pattern: ".venv", dir: true, made: pythons},
	{pattern: "venv", dir: true, within: "pyvenv.cfg", made: pythons},
	{pattern: "env", dir: true, within: "pyvenv.cfg", made: pythons},
	{pattern: ".tox", dir: true}, {pattern: ".nox", dir: true}, {pattern: ".pytest_cache", dir: true}, {pattern: ".mypy_cache", dir: true}, {pattern: ".ruff_cache", dir: true},
	{pattern: "*.egg-info", dir: true, made: pythons},
	{pattern: "target", dir: true, beside: []string{"Cargo.toml", "pom.xml", "build.sbt"}, made: builds},
	{pattern: ".gradle", dir: true},
	{pattern: "bin", dir: true, beside: []string{"*.csproj", "*.fsproj", "*.vbproj"}, made: builds},
	{pattern: "obj", dir: true, beside: []string{"*.csproj", "*.fsproj", "*.vbproj"}, made: builds},
	{pattern: ".next", dir: true, made: builds}, {pattern: ".nuxt", dir: true, made: builds}, {pattern: ".svelte-kit", dir: true, made: builds},
	{pattern: ".turbo", dir: true}, {pattern: ".parcel-cache", dir: true}, {pattern: ".nyc_output", dir: true}, {pattern: ".terraform", dir: true},
	{pattern: "dist", dir: true, made: builds, listed: true},
	{pattern: "build", dir: true, made: builds, listed: true},
	{pattern: "out", dir: true, made: builds, listed: true},
	{pattern: "coverage", dir: true, listed: true},
	{pattern: "tmp", dir: true, listed: true},
	{pattern: "*.log"},
	{pattern: ".env"},
	{pattern: ".env.*"},
	{pattern: ".idea", dir: true}, {pattern: ".vscode", dir: true},
	{pattern: ".DS_Store"},
	{pattern: "Dockerfile*", quiet: true},
	{pattern: "docker-compose*.y*ml", quiet: true}, {pattern: "compose*.y*ml", quiet: true},
	{pattern: ".dockerignore", quiet: true},
}

// versions are programs that take a version out of .git.
var versions = lazily(`\bgit\s+(describe|rev-parse|log|show|rev-list|status|submodule|ls-files|diff)\b|setuptools[_-]scm|hatch-vcs|versioneer|goreleaser|\bgitversion\b|semantic-release|jgitver|--mount=[^ ]*\.git\b`)

func noDockerignore(c *check) {
	if c.f.Context == nil || c.f.Context.Ignore {
		return
	}
	var whole *plan.Step
	var all []contextCopy
	for _, st := range c.p.Stages {
		for _, cc := range c.copies(st) {
			all = append(all, cc)
			if cc.whole() && len(cc.exclude) == 0 && (whole == nil || cc.step.ID < whole.ID) {
				whole = cc.step
			}
		}
	}
	if whole == nil {
		return
	}
	lines, reasons := propose(c, append(all, c.bound()...))
	if len(reasons) == 0 {
		return
	}
	name := strings.ToUpper(whole.Cmd.Name())
	c.report(whole, "", Finding{
		Message: fmt.Sprintf("this %s takes all of the context, and there is no .dockerignore: %s", name, enumerate(reasons, "goes along", "go along")),
		Remedy:  "write a .dockerignore; every change of what it leaves out would run the steps below again",
		Fix:     &Fix{File: ".dockerignore", Content: strings.Join(lines, "\n") + "\n"},
	})
}

// enumerate lists names for a sentence.
func enumerate(names []string, one, many string) string {
	switch n := len(names); {
	case n == 1:
		return names[0] + " " + one
	case n <= 4:
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1] + " " + many
	default:
		return fmt.Sprintf("%s and %d more %s", strings.Join(names[:3], ", "), n-3, many)
	}
}

// bound are what RUNs mount from the context.
func (c *check) bound() (list []contextCopy) {
	c.everyStep(func(st *plan.Stage, i int, s *plan.Step) {
		mounts, _ := c.p.Mounts(s, &c.states[st][i])
		for _, m := range mounts {
			if m.Type == instructions.MountTypeBind && m.From == "" && m.Source != "" {
				list = append(list, contextCopy{step: s, sources: []string{contextPath(m.Source)}})
			}
		}
	})
	return list
}

// propose makes the lines of an ignore file: of what the context holds, what the build does not name and makes anew, if it needs it. reasons
// are what is worth it.
func propose(c *check, copies []contextCopy) (lines, reasons []string) {
	var text strings.Builder
	c.everyStep(func(_ *plan.Stage, _ int, s *plan.Step) {
		if _, ok := s.Cmd.(*instructions.RunCommand); ok {
			text.WriteString(s.Text + "\n")
		}
	})
	runs := text.String()
	listed := gitIgnore(c.f.Context)
	for _, k := range ignorables {
		if k.made != nil && !k.made().MatchString(runs) || k.pattern == ".git" && c.readsGit(runs) {
			continue
		}
		found := c.find(k, listed)
		if len(found) == 0 || slices.ContainsFunc(copies, func(cc contextCopy) bool { return slices.ContainsFunc(found, cc.names) }) {
			continue
		}
		line := k.pattern
		if slices.ContainsFunc(found, func(name string) bool { return strings.Contains(name, "/") }) {
			line = "**/" + line
		}
		lines = append(lines, line)
		if k.pattern == ".env.*" {
			lines = append(lines, samplesOf(c.f.Context)...)
		}
		if !k.quiet {
			reasons = append(reasons, found[0])
		}
	}
	for _, name := range filesNamed(c.f.Context, mayBeSecret) {
		what, _ := secretIn(name, c.f.Context.Paths[name].Data)
		if what == "" || inside(name) || forTests().MatchString(name) || ignored(lines, name) || slices.ContainsFunc(copies, func(cc contextCopy) bool { return cc.names(name) }) {
			continue
		}
		lines, reasons = append(lines, name), append(reasons, name)
	}
	return lines, reasons
}

// ignored reports whether lines of an ignore file leave a path out.
func ignored(lines []string, name string) bool {
	m, err := patternmatcher.New(lines)
	if err != nil {
		return false
	}
	ok, err := m.MatchesOrParentMatches(name)
	return ok && err == nil
}

// samplesOf are lines that keep the example files that .env.* would leave out.
func samplesOf(ctx *plan.Context) (lines []string) {
	for _, name := range filesNamed(ctx, func(name string) bool {
		return strings.HasPrefix(path.Base(name), ".env.") && samples().MatchString(path.Base(name))
	}) {
		lines = append(lines, "!"+name)
	}
	return lines
}

// readsGit reports whether the build may read .git.
func (c *check) readsGit(runs string) bool {
	if versions().MatchString(runs) {
		return true
	}
	for _, name := range []string{"pyproject.toml", "setup.py", "setup.cfg", "package.json", "Makefile", "pom.xml", "build.gradle"} {
		if versions().Match(c.f.Context.Paths[name].Data) {
			return true
		}
	}
	return false
}

// find lists what the context has of a kind, sorted, without what is below another find.
func (c *check) find(k ignorable, listed func(string) bool) (found []string) {
	for name, p := range c.f.Context.Paths {
		if ok, _ := path.Match(k.pattern, path.Base(name)); !ok || name == "." || p.Mode.IsDir() != k.dir || p.Mode&fs.ModeSymlink != 0 || k.listed && !listed(name) || !k.dir && samples().MatchString(path.Base(name)) && strings.HasPrefix(k.pattern, ".env") {
			continue
		}
		if k.within != "" && !c.f.Context.Paths[name+"/"+k.within].Exists || k.beside != nil && !c.beside(name, k.beside) || inside(name) {
			continue
		}
		found = append(found, name)
	}
	slices.SortFunc(found, func(a, b string) int {
		if d := strings.Count(a, "/") - strings.Count(b, "/"); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return found
}

// inside reports whether the path is in a directory that is proposed as a whole.
func inside(name string) bool {
	for _, d := range strings.Split(path.Dir(name), "/") {
		if d == "node_modules" || d == ".git" || d == ".venv" || d == "__pycache__" {
			return true
		}
	}
	return false
}

func (c *check) beside(name string, patterns []string) bool {
	dir := path.Dir(name)
	for sibling := range c.f.Context.Paths {
		if path.Dir(sibling) != dir {
			continue
		}
		for _, p := range patterns {
			if ok, _ := path.Match(p, path.Base(sibling)); ok {
				return true
			}
		}
	}
	return false
}

// gitIgnore tells what the context's .gitignore lists, as far as a .dockerignore could say the same.
func gitIgnore(ctx *plan.Context) func(name string) bool {
	var patterns []string
	lines, err := ignorefile.ReadAll(strings.NewReader(string(ctx.Paths[".gitignore"].Data)))
	if err != nil {
		return func(string) bool { return false }
	}
	for _, line := range lines {
		if strings.HasPrefix(line, "!") || strings.Contains(line, "/") {
			patterns = append(patterns, line)
		} else {
			patterns = append(patterns, "**/"+line)
		}
	}
	return func(name string) bool { return ignored(patterns, name) }
}
