package installer

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/script"
)

// project is the directory in which an installer is called, seen through the COPY instructions above it. What the installer's row asks for is
// remembered; the first thing that speaks against the rewrite is the refusal, and nothing that is asked after it counts.
//
// A file that no COPY of the block copies comes from a step that stays where it is, and is no business of the pass.
type project struct {
	files     Files
	state     *plan.State
	dir       string   // absolute
	words     []string // of the call, the program first
	command   script.Command
	env       map[string]string // assignments in front of the command
	manifests []string          // absolute
	refusal   *Refusal
	name      string
}

func newProject(files Files, state *plan.State, c *Call) *project {
	p := &project{files: files, state: state, dir: c.Dir(state), command: c.command, env: map[string]string{}, name: c.in.name}
	p.words, _ = programWords(c.command)
	p.program()
	p.environment(c.in.variables)
	p.home()
	return p
}

func (p *project) refuse(name, format string, args ...any) {
	if p.refusal == nil {
		p.refusal = &Refusal{name, fmt.Sprintf(format, args...)}
	}
}

// program refuses an installer that is itself copied.
func (p *project) program() {
	name := p.command.Name()
	if !strings.Contains(name, "/") || path.Base(name) == "gradlew" || path.Base(name) == "mvnw" {
		return
	}
	if p.exists(name) {
		p.refuse("copied-program", "%s is one of the copied files", name)
	}
}

// HomeFiles are what programs look for in the home directory.
var HomeFiles = []string{
	".bundle", ".bunfig.toml", ".cache", ".cargo", ".composer", ".config", ".dotnet", ".gem", ".gitconfig", ".git-credentials", ".gradle", ".local", ".m2",
	".netrc", ".npm", ".nuget", ".pip", ".pydistutils.cfg", ".rustup", ".ssh", ".yarn",
}

// home refuses files for the home directory among those that move. Which directory that is may not be known.
func (p *project) home() {
	home, set, known := p.state.Lookup("HOME")
	for _, c := range p.files.Roots() {
		switch {
		case !c.Wide:
			continue
		case set && known && path.Clean(home.Value) != c.Dir, !set && p.state.Root() && c.Dir != "/root":
			continue
		}
		for _, name := range HomeFiles {
			if p.exists(path.Join(c.Dir, name)) {
				p.refuse("home-directory", "%s is copied to what may be the home directory", name)
			}
		}
	}
}

// entry looks at a path, relative to the project. Links and what is not known are refused.
func (p *project) entry(name string) plan.Path {
	if !path.IsAbs(name) {
		name = path.Join(p.dir, name)
	}
	name = path.Clean(name)
	_, e, known := p.files.Lookup(name)
	switch {
	case !known:
		p.refuse("context-unknown", "it is not known whether the context has %s", p.shown(name))
		return plan.Path{}
	case e.Exists && e.Mode&fs.ModeSymlink != 0:
		p.refuse("symlink", "%s is a symbolic link", p.shown(name))
	}
	return e
}

// shown is a path for people: relative to the project if it is in it.
func (p *project) shown(name string) string {
	if rel := strings.TrimPrefix(name, p.dir+"/"); rel != name {
		return rel
	}
	return name
}

func (p *project) exists(name string) bool { return p.entry(name).Exists }

// add makes those of the paths that exist manifests. They must be files.
func (p *project) add(names ...string) {
	for _, name := range names {
		e := p.entry(name)
		if !e.Exists {
			continue
		}
		abs := name
		if !path.IsAbs(abs) {
			abs = path.Join(p.dir, name)
		}
		abs = path.Clean(abs)
		switch from, _, _ := p.files.Lookup(abs); {
		case !e.Mode.IsRegular():
			p.refuse("not-a-file", "%s is no regular file", p.shown(abs))
		case strings.ContainsAny(from+abs, "*?[\\\"'$<") || strings.HasPrefix(from, "-"):
			p.refuse("odd-name", "%s has a name that COPY would read as a pattern", p.shown(abs))
		}
		if !slices.Contains(p.manifests, abs) {
			p.manifests = append(p.manifests, abs)
		}
	}
}

// read makes a path a manifest and gives its content, nil if it is not copied, or refused.
func (p *project) read(name string) []byte {
	e := p.entry(name)
	if !e.Exists || p.refusal != nil {
		return nil
	}
	p.add(name)
	if e.Data == nil {
		p.refuse("content-unknown", "the content of %s is not known", name)
		return nil
	}
	return e.Data
}

// need is read for the file without which there is nothing to install.
func (p *project) need(name string) []byte {
	data := p.read(name)
	if data == nil {
		p.refuse("no-manifest", "%s is not among the files that are copied", name)
	}
	return data
}

// absent refuses if one of the paths is copied: a file that changes what the installer does, in a way that is not followed.
func (p *project) absent(name, why string, paths ...string) {
	for _, f := range paths {
		if p.exists(f) {
			p.refuse(name, "%s %s", f, why)
		}
	}
}

// makes refuses if the context has what the installer makes or changes: it would be copied over it.
func (p *project) makes(paths ...string) {
	for _, f := range paths {
		if p.exists(f) {
			p.refuse("overlap", "%s is in the context, too, and would be copied over what is installed; name it in .dockerignore", f)
		}
	}
}

// above are the directories around the project in which copied files may be, from the inside.
func (p *project) above() (dirs []string) {
	if p.dir == "/" {
		return nil
	}
	for dir := path.Dir(p.dir); ; dir = path.Dir(dir) {
		if slices.ContainsFunc(p.files.Roots(), func(c Root) bool { return inside(dir, c.Dir) }) {
			dirs = append(dirs, dir)
		}
		if dir == "/" {
			return dirs
		}
	}
}

// notAbove refuses if a directory above the project has one of the files.
func (p *project) notAbove(names ...string) {
	for _, dir := range p.above() {
		for _, name := range names {
			if p.exists(path.Join(dir, name)) {
				p.refuse("parent-directory", "%s has a %s, which holds for the directories below it", dir, name)
			}
		}
	}
}

// flags reads the arguments after the first n words: those in boolean stand alone, those in valued have a value. Others are refused.
func (p *project) flags(n int, boolean, valued string) (values map[string][]string, operands []string) {
	values = map[string][]string{}
	bools, vals := strings.Fields(boolean), strings.Fields(valued)
	args := p.command.Args()
	args = args[len(args)-(len(p.words)-1):] // without -m pip
	for i := n - 1; i < len(args); i++ {
		a := args[i]
		if !a.Literal {
			if name, _, ok := strings.Cut(a.Raw, "="); !ok || !slices.Contains(vals, name) || !slices.Contains(opaqueFlags, name) {
				p.refuse("unknown-argument", "the value of %s is not known", a.Raw)
			}
			continue
		}
		name, value, assigned := strings.Cut(a.Value, "=")
		switch {
		case !strings.HasPrefix(a.Value, "-") || a.Value == "-":
			operands = append(operands, a.Value)
		case slices.Contains(bools, a.Value):
			values[name] = append(values[name], "")
		case slices.Contains(vals, name) && !assigned:
			i++
			if i == len(args) {
				p.refuse("unknown-argument", "%s lacks its value", name)
				return values, operands
			}
			if !args[i].Literal && !slices.Contains(opaqueFlags, name) {
				p.refuse("unknown-argument", "the value of %s is not known", name)
			}
			values[name] = append(values[name], args[i].Value)
		case slices.Contains(vals, name), slices.Contains(bools, name):
			values[name] = append(values[name], value)
		case short(a.Value, bools):
			for _, letter := range a.Value[1:] {
				values["-"+string(letter)] = append(values["-"+string(letter)], "")
			}
		default:
			p.refuse("unknown-flag", "%s %s is not known to leave other files alone", p.name, a.Value)
		}
	}
	for _, name := range sortedKeys(values) {
		list := values[name]
		for _, v := range list {
			isPath := slices.Contains(pathFlags, name) || (strings.Contains(v, "/") || strings.HasPrefix(v, ".")) && !slices.Contains(followedFlags, name)
			if isPath && v != "" && !p.outside(v) {
				p.refuse("unknown-flag", "%s %s names a place among the copied files", p.name, name)
			}
		}
	}
	return values, operands
}

// short reports whether a word is several known flags of one letter.
func short(word string, flags []string) bool {
	if len(word) < 3 || word[1] == '-' {
		return false
	}
	for _, letter := range word[1:] {
		if !slices.Contains(flags, "-"+string(letter)) {
			return false
		}
	}
	return true
}

// opaqueFlags have a value that names no file, and so need not be known.
var opaqueFlags = []string{
	"--registry", "--index-url", "-i", "--extra-index-url", "--index", "--default-index", "--trusted-host", "--jobs", "-j", "--network-timeout", "--default-timeout", "--timeout", "--retries", "--retry",
}

// followedFlags name files or directories that the rows look at, or things with slashes that are none.
var followedFlags = []string{
	"-r", "--requirement", "--requirements", "-c", "--constraint", "--constraints", "--prefix", "-C", "-s", "--settings", "--source", "-ldflags", "-tags", "--trusted-host",
}

// pathFlags have a file or directory as value, which must not be among the copied ones.
var pathFlags = []string{
	"--cache", "--cache-folder", "--cache-dir", "--store-dir", "--prefix-path", "--find-links", "-f", "--target", "-t", "--root", "--path", "--packages", "--cafile",
	"--cert", "--client-cert", "--log",
}

// outside reports whether a value is a URL, or an absolute path that no copy has to do with.
func (p *project) outside(value string) bool {
	if strings.HasPrefix(value, "https://") || strings.HasPrefix(value, "http://") {
		return true
	}
	if !path.IsAbs(value) {
		return false
	}
	return !slices.ContainsFunc(p.files.Roots(), func(c Root) bool { return inside(path.Clean(value), c.Dir) })
}

func has(values map[string][]string, names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { v, ok := values[n]; return ok && !slices.Contains(v, "false") })
}

// inside reports whether a clean absolute path is dir or below it.
func inside(name, dir string) bool {
	return name == dir || dir == "/" || strings.HasPrefix(name, dir+"/")
}
