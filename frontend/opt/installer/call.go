package installer

import (
	"path"
	"slices"
	"strings"

	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/script"
)

// Call is a command of a RUN that the table knows.
type Call struct {
	in      *installer
	command script.Command
	dir     string
}

// Files are the files that COPY instructions put into the container.
type Files interface {
	// Lookup finds what is copied to an absolute path, and the path of the context that it is copied from. known is false if that is not known.
	Lookup(name string) (from string, p plan.Path, known bool)

	// List gives the sorted names in a directory; ok is false if they are not all known.
	List(dir string) (names []string, ok bool)

	// Roots are the destinations of the COPY instructions.
	Roots() []Root
}

// Root is the destination of a COPY.
type Root struct {
	Dir  string // absolute
	Wide bool   // it is more than some files that are named in the COPY
}

// Refusal is why a command may look at more than its manifests.
type Refusal struct {
	Name    string // stable, kebab-case
	Message string
}

// Name is what people call the command, "" for one that installs nothing.
func (c *Call) Name() string { return c.in.name }

// ReadsManifests reports whether the command looks at the project at all.
func (c *Call) ReadsManifests() bool { return len(c.in.looks) > 0 }

// Dir is the absolute directory in which the command runs.
func (c *Call) Dir(state *plan.State) string {
	if path.IsAbs(c.dir) {
		return c.dir
	}
	return path.Join(state.Dir, c.dir)
}

// Examine gives the manifests, as absolute paths, or says why the command may read more.
func (c *Call) Examine(files Files, state *plan.State) ([]string, *Refusal) {
	p := newProject(files, state, c)
	if p.refusal == nil {
		c.in.examine(p)
	}
	return p.manifests, p.refusal
}

// Looks are the paths that Examine may look at, relative to Dir; some are patterns. What it looks at above Dir has the same names.
func (c *Call) Looks() []string { return slices.Concat(c.in.looks, c.operandFiles()) }

// operandFiles are the arguments that may be files.
func (c *Call) operandFiles() (names []string) {
	for _, a := range c.command.Args() {
		value := a.Value
		if name, after, ok := strings.Cut(value, "="); ok && strings.HasPrefix(name, "-") {
			value = after
		}
		if a.Literal && !strings.HasPrefix(value, "-") && path.Ext(value) != "" && !strings.Contains(value, "://") {
			names = append(names, value)
		}
	}
	return names
}

// Read finds a command in the table; dir is the directory in which it runs, relative to that of the RUN unless it is absolute, next that of the commands
// after it. No call means that the command is harmless.
func Read(c script.Command, dir string) (call *Call, next string, ok bool) {
	if c.Background || c.Piped || c.Subshell || c.Function || !quiet(c.Redirects) {
		return nil, dir, false
	}
	switch name := c.Name(); {
	case len(c.Wrappers) > 0 && !slices.Equal(c.Wrappers, []string{"env"}):
		return nil, dir, false
	case name == "cd" && len(c.Assigns) == 0:
		args := c.Args()
		if len(args) != 1 || !args[0].Literal || strings.HasPrefix(args[0].Value, "-") || args[0].Value == "" {
			return nil, dir, false
		}
		if path.IsAbs(args[0].Value) {
			return nil, path.Clean(args[0].Value), true
		}
		return nil, path.Join(dir, args[0].Value), true
	case slices.Contains([]string{"true", ":", "echo", "set"}, name):
		return nil, dir, c.Literal() && !slices.ContainsFunc(c.Words, func(w script.Word) bool { return w.Value == "-n" && name == "set" })
	case name == "rm":
		return nil, dir, cleansCaches(c)
	}
	words, literal := programWords(c)
	if !literal {
		return nil, dir, false
	}
	for i := range installers {
		if installers[i].matches(words) {
			return &Call{&installers[i], c, dir}, dir, true
		}
	}
	return nil, dir, false
}

// programWords are the program's name, without directory, and its arguments; python -m pip is pip. Values that are not literal are empty.
func programWords(c script.Command) ([]string, bool) {
	args := c.Args()
	program := c.Name()
	if program == "" {
		return nil, false
	}
	words := []string{path.Base(program)}
	for _, a := range args {
		words = append(words, a.Value)
	}
	if strings.HasPrefix(words[0], "python") && len(words) > 2 && words[1] == "-m" {
		words = words[2:]
	}
	return words, true
}

func quiet(redirects []script.Redirect) bool {
	return !slices.ContainsFunc(redirects, func(r script.Redirect) bool {
		return r.Writes() && !(r.Target.Literal && r.Target.Value == "/dev/null") || !r.Writes() && r.Op != ">&"
	})
}

// cleansCaches reports whether an rm touches nothing but package managers' caches, outside of any project.
func cleansCaches(c script.Command) bool {
	if len(c.Assigns) > 0 {
		return false
	}
	for _, a := range c.Args() {
		switch {
		case strings.HasPrefix(a.Raw, "-"):
		case strings.ContainsAny(a.Raw, "$`\"'{") || strings.Contains(a.Raw, ".."):
			return false
		case strings.HasPrefix(a.Raw, "/var/lib/apt/lists"), strings.HasPrefix(a.Raw, "/var/cache/apt"), strings.HasPrefix(a.Raw, "/var/cache/apk"),
			strings.HasPrefix(a.Raw, "/root/.npm"), strings.HasPrefix(a.Raw, "/root/.cache"), strings.HasPrefix(a.Raw, "~/.npm"), strings.HasPrefix(a.Raw, "~/.cache"),
			strings.HasPrefix(a.Raw, "/usr/local/share/.cache"):
		default:
			return false
		}
	}
	return true
}
