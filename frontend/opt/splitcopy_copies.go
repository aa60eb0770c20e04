package opt

import (
	"encoding/json"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/patternmatcher"

	"github.com/optbuild/optbuild/frontend/opt/installer"
	"github.com/optbuild/optbuild/frontend/plan"
)

// contextCopy is a COPY, or an ADD of a directory, that copies files of the build context and does nothing else with them.
type contextCopy struct {
	step    *plan.Step
	at      int      // index in the stage
	dest    string   // absolute
	raw     string   // as written
	flags   []string // those that hold for copied manifests as well
	sources []copySource
	exclude *patternmatcher.PatternMatcher // nil: nothing

	variable bool // a source has a variable, whose value another build may change
}

// copySource is one source of a COPY.
type copySource struct {
	path    string // in the context, "." for its root
	dir     bool   // its content is copied to the destination
	pattern bool   // path is a pattern of files; it may match files that are not known
}

// readCopy reads a step; nil if it copies anything else, or in a way that this pass does not follow.
func readCopy(step *plan.Step, at int, state *plan.State, ctx *plan.Context) *contextCopy {
	var sd instructions.SourcesAndDest
	var chown, chmod string
	var link bool
	var exclude []string
	add := false
	switch c := step.Cmd.(type) {
	case *instructions.CopyCommand:
		if c.From != "" || c.Parents {
			return nil
		}
		sd, chown, chmod, link, exclude = c.SourcesAndDest, c.Chown, c.Chmod, c.Link, c.ExcludePatterns
	case *instructions.AddCommand:
		if c.Checksum != "" || c.KeepGitDir != nil || c.Unpack != nil {
			return nil
		}
		sd, chown, chmod, link, exclude, add = c.SourcesAndDest, c.Chown, c.Chmod, c.Link, c.ExcludePatterns, true
	default:
		return nil
	}
	if len(sd.SourceContents) > 0 || !state.DirOK || strings.ContainsAny(sd.DestPath, `"'\`) {
		return nil
	}
	dest, ok := state.Expand(sd.DestPath)
	if !ok || dest == "" {
		return nil
	}
	c := &contextCopy{step: step, at: at, raw: sd.DestPath, dest: path.Join("/", dest)}
	if !path.IsAbs(dest) {
		c.dest = path.Join(state.Dir, dest)
	}
	for _, f := range [][2]string{{"--chown=", chown}, {"--chmod=", chmod}} {
		if f[1] != "" {
			c.flags = append(c.flags, f[0]+f[1])
		}
	}
	if link {
		c.flags = append(c.flags, "--link")
	}
	if strings.ContainsAny(strings.Join(c.flags, ""), " \t\"'\\") {
		return nil
	}
	if len(exclude) > 0 {
		m, err := patternmatcher.New(exclude)
		if err != nil || m.Exclusions() || strings.Contains(strings.Join(exclude, ""), "$") {
			return nil
		}
		c.exclude = m
	}
	for _, word := range sd.SourcePaths {
		if !c.addSource(word, state, ctx, add) {
			return nil
		}
	}
	slash := strings.HasSuffix(dest, "/") || path.Base(dest) == "." || c.dest == state.Dir
	if len(c.sources) == 1 && !c.sources[0].dir && !c.sources[0].pattern && !slash {
		return nil // whether the destination is a directory depends on what is there
	}
	return c
}

func (c *contextCopy) addSource(word string, state *plan.State, ctx *plan.Context, add bool) bool {
	c.variable = c.variable || strings.Contains(word, "$")
	word, ok := state.Expand(word)
	if !ok || word == "" || strings.Contains(word, "://") || strings.HasPrefix(word, "git@") || strings.Contains(word, `\`) {
		return false
	}
	name := path.Clean(strings.TrimLeft(path.Join("/", word), "/"))
	if strings.ContainsAny(name, "*?[") {
		if add {
			return false
		}
		dir, base := path.Split(name)
		if strings.ContainsAny(dir, "*?[") || !installer.IsManifestPattern(base) {
			return false
		}
		c.sources = append(c.sources, copySource{path: name, pattern: true})
		return true
	}
	p, known := ctx.Lookup(name)
	switch {
	case name == ".":
		c.sources = append(c.sources, copySource{path: name, dir: true})
	case !known && (path.Ext(name) != "" && !strings.HasSuffix(word, "/") || installer.IsManifest(path.Base(name))):
		if add {
			return false
		}
		c.sources = append(c.sources, copySource{path: name}) // a file, by its looks; if it is none, its content is unknown as well
	case !known || p.Mode.IsDir():
		c.sources = append(c.sources, copySource{path: name, dir: true})
	case p.Mode.IsRegular() && !add:
		c.sources = append(c.sources, copySource{path: name})
	default:
		return false
	}
	return true
}

// wide reports whether the COPY copies whole directories, and so more than the files that somebody chose.
func (c *contextCopy) wide() bool {
	return slices.ContainsFunc(c.sources, func(s copySource) bool { return s.dir })
}

// related reports whether the COPY copies to one of the directories, or into one, or around one. With no directories, any is.
func (c *contextCopy) related(dirs []string) bool {
	return len(dirs) == 0 || slices.ContainsFunc(dirs, func(d string) bool { return insideDir(d, c.dest) || insideDir(c.dest, d) })
}

// lookup finds what the COPY puts at an absolute path of the container, and the path of the context that it comes from.
func (c *contextCopy) lookup(ctx *plan.Context, name string) (from string, p plan.Path, known bool) {
	if !insideDir(name, c.dest) {
		return "", plan.Path{}, true
	}
	rel := strings.TrimPrefix(strings.TrimPrefix(name, c.dest), "/")
	if rel == "" {
		rel = "."
	}
	if c.exclude != nil && rel != "." {
		if out, err := c.exclude.MatchesOrParentMatches(rel); err != nil || out {
			return "", plan.Path{}, err == nil
		}
	}
	for _, s := range slices.Backward(c.sources) {
		switch {
		case s.dir:
			from = path.Join(s.path, rel)
		case s.pattern:
			from = path.Join(path.Dir(s.path), rel)
			if ok, _ := path.Match(s.path, from); !ok {
				continue
			}
		default:
			if rel != path.Base(s.path) {
				continue
			}
			from = s.path
		}
		if p, known = ctx.Lookup(from); !known || p.Exists {
			return from, p, known
		}
	}
	return from, plan.Path{}, true
}

// from are the paths of the context that the COPY would copy to an absolute path of the container.
func (c *contextCopy) from(name string) (list []string) {
	rel := strings.TrimPrefix(strings.TrimPrefix(name, c.dest), "/")
	for _, src := range c.sources {
		switch {
		case !insideDir(name, c.dest):
		case src.dir:
			list = append(list, path.Join(src.path, rel))
		case src.pattern, rel == path.Base(src.path):
			list = append(list, path.Join(path.Dir(src.path), rel))
		}
	}
	return list
}

// covers refuses if c also copies a file that other copies by name.
func (c *contextCopy) covers(ctx *plan.Context, other *contextCopy) *splitRefusal {
	if !insideDir(other.dest, c.dest) && !insideDir(c.dest, other.dest) {
		return nil
	}
	for _, s := range other.sources {
		if s.dir {
			return refuseSplit("other-copy", "another COPY copies directories to "+other.dest+" as well", Arg{"destination", other.dest})
		}
		if s.pattern {
			if ctx == nil || !ctx.Complete {
				return refuseSplit("other-copy", "it is not known what another COPY, of "+s.path+", copies", Arg{"source", s.path})
			}
			for name := range ctx.Paths {
				if ok, _ := path.Match(s.path, name); !ok {
					continue
				}
				if _, p, known := c.lookup(ctx, path.Join(other.dest, path.Base(name))); !known || p.Exists {
					return refuseSplit("other-copy", "another COPY copies "+s.path+" over the files of this one", Arg{"source", s.path})
				}
			}
			continue
		}
		if _, p, known := c.lookup(ctx, path.Join(other.dest, path.Base(s.path))); !known || p.Exists {
			return refuseSplit("other-copy", "another COPY copies "+s.path+" over the file of this one", Arg{"source", s.path})
		}
	}
	return nil
}

// narrow makes the steps that copy some files of c only, one for each directory.
func (c *contextCopy) narrow(p *plan.Plan, ctx *plan.Context, files []string) []*plan.Step {
	var dirs []string
	from := map[string][]string{}
	for _, name := range files {
		src, _, _ := c.lookup(ctx, name)
		dir := path.Dir(name)
		if from[dir] == nil {
			dirs = append(dirs, dir)
		}
		from[dir] = append(from[dir], src)
	}
	slices.Sort(dirs)
	var steps []*plan.Step
	for _, dir := range dirs {
		words := append(from[dir], c.target(dir))
		line := strings.Join(words, " ")
		if slices.ContainsFunc(words, func(w string) bool { return strings.ContainsAny(w, " \t") }) {
			b, err := json.Marshal(words)
			if err != nil {
				panic(err) // strings always marshal
			}
			line = string(b)
		}
		steps = append(steps, mustStep(p.NewStep(strings.Join(append(append([]string{"COPY"}, c.flags...), line), " "), c.step)).WithLead(""))
	}
	return steps
}

// target is the destination, as the user writes it, for files that belong in dir.
func (c *contextCopy) target(dir string) string {
	sub := strings.TrimPrefix(strings.TrimPrefix(dir, c.dest), "/")
	base := strings.TrimRight(c.raw, "/")
	if base == "." && sub != "" {
		return sub + "/"
	}
	return strings.TrimRight(base+"/"+sub, "/") + "/"
}

// copiedTree is what several COPY instructions put into the container, one over the other.
type copiedTree struct {
	ctx    *plan.Context
	copies []*contextCopy
	asked  []string // paths of the context that were looked at
}

// Lookup finds what is copied to a path of the container.
func (t *copiedTree) Lookup(name string) (from string, p plan.Path, known bool) {
	_, from, p, known = t.entry(name)
	return from, p, known
}

// Roots are the destinations.
func (t *copiedTree) Roots() (roots []installer.Root) {
	for _, c := range t.copies {
		roots = append(roots, installer.Root{Dir: c.dest, Wide: c.wide()})
	}
	return roots
}

func (t *copiedTree) entry(name string) (*contextCopy, string, plan.Path, bool) {
	for _, c := range slices.Backward(t.copies) {
		t.asked = append(t.asked, c.from(name)...)
		from, p, known := c.lookup(t.ctx, name)
		if !known || p.Exists {
			return c, from, p, known
		}
		for dir := path.Dir(from); from != "" && dir != "."; dir = path.Dir(dir) { // behind a link
			if d, ok := t.ctx.Lookup(dir); ok && d.Mode&fs.ModeSymlink != 0 {
				return c, dir, d, true
			}
		}
	}
	return nil, "", plan.Path{}, true
}

// List are the names in a directory of the container that come from the context; ok is false if they are not all known.
func (t *copiedTree) List(dir string) (names []string, ok bool) {
	if t.ctx == nil || !t.ctx.Complete {
		return nil, false
	}
	for _, c := range t.copies {
		for _, s := range c.sources {
			root := path.Join(s.path, strings.TrimPrefix(strings.TrimPrefix(dir, c.dest), "/"))
			switch {
			case !insideDir(dir, c.dest):
			case !s.dir && dir == c.dest:
				names = append(names, t.matching(s)...)
			case s.dir:
				names = append(names, t.children(root)...)
			}
		}
	}
	names = slices.DeleteFunc(names, func(n string) bool { _, p, known := t.Lookup(path.Join(dir, n)); return known && !p.Exists })
	slices.Sort(names)
	return slices.Compact(names), true
}

func (t *copiedTree) children(dir string) (names []string) {
	for name := range t.ctx.Paths {
		if path.Dir(name) == dir && name != "." {
			names = append(names, path.Base(name))
		}
	}
	return names
}

func (t *copiedTree) matching(s copySource) (names []string) {
	if !s.pattern {
		return []string{path.Base(s.path)}
	}
	for name := range t.ctx.Paths {
		if ok, _ := path.Match(s.path, name); ok {
			names = append(names, path.Base(name))
		}
	}
	return names
}

// insideDir reports whether a clean absolute path is dir or below it.
func insideDir(name, dir string) bool {
	return name == dir || dir == "/" || strings.HasPrefix(name, dir+"/")
}

// ownDirs are directories in which the base image and programs keep files: an installation may read or write there without being told.
var ownDirs = []string{
	"/bin", "/boot", "/dev", "/etc", "/go/bin", "/go/pkg", "/lib", "/lib32", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr/bin", "/usr/include",
	"/usr/lib", "/usr/lib64", "/usr/local/bin", "/usr/local/bundle", "/usr/local/cargo", "/usr/local/etc", "/usr/local/go", "/usr/local/include",
	"/usr/local/lib", "/usr/local/rustup", "/usr/local/sbin", "/usr/local/share", "/usr/sbin", "/usr/share/dotnet", "/usr/share/maven", "/var/cache",
	"/var/lib", "/var/log", "/var/run",
}

// sharedDir reports whether a destination is one of ownDirs, in one, or around one or a home directory.
func sharedDir(dest string) bool {
	if slices.Contains([]string{"/", "/home", "/tmp", "/opt", "/var/tmp"}, dest) {
		return true
	}
	return slices.ContainsFunc(ownDirs, func(d string) bool { return insideDir(dest, d) || insideDir(d, dest) })
}
