package opt

import (
	"errors"
	"fmt"
	"iter"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/optbuild/optbuild/frontend/plan"
)

// origin is where files of a stage come from, for what may be behind their names: a symbolic link may lead to the base image, whose files differ
// between platforms.
type origin int

const (
	file    origin = iota // one file, made by a known program
	context               // the build context, of which it may be known which paths are links
	archive               // an archive, a repository or another stage: links may be anywhere in it
	copied                // a copy of what may be a link
)

type made struct {
	path    string
	origin  origin
	sources []string // of origin context: what is copied, relative to the context
}

// official is the name of one of Docker's official images of which this pass knows where they have files, and that they are there for linux/amd64 and linux/arm64.
//
// What lies in /opt and /home of those for which once holds (Yarn, an empty home) is the same everywhere.
func official(name string, once bool) (string, bool) {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", false
	}
	short, ok := strings.CutPrefix(ref.Name(), "docker.io/library/")
	if tag, tagged := ref.(reference.Tagged); tagged && (strings.Contains(tag.Tag(), "nanoserver") || strings.Contains(tag.Tag(), "windowsservercore")) {
		return "", false
	}
	return short, ok && slices.Contains(officials(once), short)
}

func officials(once bool) []string {
	if once {
		return []string{"alpine", "busybox", "buildpack-deps", "debian", "golang", "node", "python", "ruby", "ubuntu"}
	}
	return []string{"golang", "alpine", "debian", "ubuntu"}
}

// goVersion is the version of a golang image, "" if it is not known, as of latest.
func goVersion(name string, img plan.Image) string {
	if short, _ := official(name, false); short != "golang" {
		return ""
	}
	for _, kv := range img.Env {
		if v, ok := strings.CutPrefix(kv, "GOLANG_VERSION="); ok {
			return v
		}
	}
	_, tag, _ := strings.Cut(name, ":")
	v, _, _ := strings.Cut(tag, "-")
	if v == "" || v[0] < '0' || v[0] > '9' {
		return ""
	}
	return v
}

// reproducible reports whether that version of Go writes the same bytes whatever it runs on.
func reproducible(version string) bool {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	minor = minor[:len(minor)-len(strings.TrimLeft(minor, "0123456789"))]
	n, err := strconv.Atoi(minor)
	return rest == "" || major != "1" || err == nil && n >= 21
}

// taken are the directories of these images. In those that are empty, or hold nothing that differs, a stage has subdirectories of its own.
var (
	taken = []string{
		"bin", "boot", "dev", "etc", "go", "home", "lib", "lib32", "lib64", "libx32", "media", "mnt", "opt", "proc", "root", "run", "sbin", "srv", "sys", "tmp", "usr", "var",
	}
	shared = []string{"home", "mnt", "opt", "srv", "tmp"}
	// programs are directories of the image into which stages put single files.
	programs = []string{"/bin", "/go/bin", "/root", "/sbin", "/usr/bin", "/usr/local/bin", "/usr/local/sbin", "/usr/sbin"}
)

// free reports whether nothing at the absolute path, or below it, comes from the base image.
func free(p string) bool {
	parts := strings.Split(strings.TrimPrefix(path.Clean(p), "/"), "/")
	if parts[0] == "" || strings.ContainsAny(parts[0], "*?[") {
		return false
	}
	if !slices.Contains(taken, parts[0]) {
		return true
	}
	if parts[0] == "usr" && len(parts) > 2 && parts[1] == "src" && !strings.HasPrefix(parts[2], "linux") && !strings.ContainsAny(parts[2], "*?[") { // empty, but for linux-headers where they are installed
		return true
	}
	return slices.Contains(shared, parts[0]) && len(parts) > 1 || parts[0] == "go" && len(parts) > 2 && parts[1] == "src"
}

// single files may stand among those of the base image.
func placed(p string) bool {
	return free(p) || slices.Contains(programs, path.Dir(p))
}

// disposable reports whether nothing depends on the files at the path.
func disposable(p string) bool {
	return slices.ContainsFunc([]string{"/var/lib/apt/lists", "/var/cache", "/var/log", "/tmp", "/root/.cache", "/go/pkg"}, func(d string) bool { return within(p, d) })
}

// cacheDir reports whether a cache mount at the path is known to hold no programs of a platform that would get into the result.
func cacheDir(p string) bool {
	return slices.ContainsFunc([]string{"/root/.cache", "/go/pkg", "/var/cache", "/var/lib/apt", "/var/lib/apt/lists", "/etc/apk/cache"}, func(d string) bool { return within(p, d) }) || strings.HasSuffix(p, "/.cache/go-build") || strings.HasSuffix(p, "/pkg/mod")
}

// puts checks a COPY or ADD into the family.
func (c *crossing) puts(s *plan.Step, sd instructions.SourcesAndDest, from string, at *plan.State) *crossRefusal {
	if !at.DirOK {
		return &crossRefusal{s, "environment", "the directory of this step is not known", nil}
	}
	dest, ok := at.Expand(sd.DestPath)
	if !ok {
		return &crossRefusal{s, "destination", "where files are copied is not known", nil}
	}
	dir := absolute(at.Dir, dest)
	if !free(dir) {
		return &crossRefusal{s, "system-file", "files are copied to " + dir + ", among those of the base image: copy them to a directory of their own (WORKDIR /src)", []Arg{{"destination", dir}}}
	}
	m := made{path: dir, origin: archive}
	if from == "" {
		m.origin = context
		for _, src := range sd.SourcePaths {
			src, ok := at.Expand(src)
			if !ok {
				m.origin = archive
			}
			m.sources = append(m.sources, path.Clean("/" + src)[1:])
		}
	}
	c.made = append(c.made, m)
	return nil
}

// copies calls f with each COPY --from of the family in a stage outside of it, once for every source, until it returns false.
func (c *crossing) copies(f func(st *plan.Stage, s *plan.Step, cmd *instructions.CopyCommand, from string) bool) {
	for _, st := range c.plan.Stages {
		if slices.Contains(c.family, st) {
			continue
		}
		states := c.plan.Flow(st, c.facts)
		for i, s := range st.Steps {
			cmd, ok := s.Cmd.(*instructions.CopyCommand)
			if !ok || !c.of(cmd.From) {
				continue
			}
			for _, src := range cmd.SourcePaths {
				p, ok := states[i].Expand(src)
				if !ok {
					p = ""
				}
				if !f(st, s, cmd, path.Clean("/"+p)) {
					return
				}
			}
		}
	}
}

// of reports whether a name means a stage of the family.
func (c *crossing) of(name string) bool {
	return name != "" && slices.Contains(c.family, c.plan.Stage(name))
}

// readers refuses what others take from the family unless the family made it.
func (c *crossing) readers() *crossRefusal {
	for _, st := range c.plan.Stages {
		for _, s := range st.Steps {
			for _, name := range plan.References(s.Cmd) {
				if strings.Contains(name, "$") {
					return &crossRefusal{s, "reference", name + " depends on a variable", nil}
				}
				if _, ok := s.Cmd.(*instructions.RunCommand); ok && c.of(name) && !slices.Contains(c.family, st) {
					return &crossRefusal{s, "mounted", "the stage is mounted here as a whole: copy what is needed from it", []Arg{{"stage", name}}}
				}
			}
			if ob, ok := s.Cmd.(*instructions.OnbuildCommand); ok && strings.Contains(strings.ToLower(ob.Expression), "from=") {
				return &crossRefusal{s, "reference", "ONBUILD may refer to any stage", nil}
			}
		}
	}
	var r *crossRefusal
	c.copies(func(_ *plan.Stage, s *plan.Step, _ *instructions.CopyCommand, from string) bool {
		r = c.taken(s, from)
		return r == nil
	})
	return r
}

// taken refuses a path that may have something of the base image in it, or behind it.
func (c *crossing) taken(s *plan.Step, from string) *crossRefusal {
	if c.isFile(from) && placed(from) {
		return nil
	}
	glob := strings.ContainsAny(from, "*?[")
	dir := beforeGlob(from)
	if !free(dir) {
		return &crossRefusal{s, "system-file", "what is copied, " + from + ", may be the base image's: copy it from another stage", []Arg{{"path", from}}}
	}
	return c.link(s, dir, glob)
}

// beforeGlob is the directory above the first part of a path that is a pattern.
func beforeGlob(p string) string {
	for strings.ContainsAny(p, "*?[") {
		p = path.Dir(p)
	}
	return p
}

// isFile reports whether a known program made the file.
func (c *crossing) isFile(p string) bool {
	for _, m := range slices.Backward(c.made) {
		if m.path == p {
			return m.origin == file
		}
	}
	return false
}

// link refuses a path of the family that may be, or lead through, a symbolic link.
func (c *crossing) link(s *plan.Step, p string, glob bool) *crossRefusal {
	if c.isFile(p) {
		return nil
	}
	for _, m := range c.made {
		if m.origin == file || !within(p, m.path) || p == m.path && !glob && m.origin != copied {
			continue
		}
		if m.origin != context || glob {
			return &crossRefusal{s, "link", "in " + m.path + ", " + p + " may be a symbolic link into the base image: copy " + m.path + " as a whole", []Arg{{"path", p}}}
		}
		behind := m.behind(p)
		if c.ask != nil {
			*c.ask = append(*c.ask, behind...)
			continue
		}
		for _, q := range behind {
			if f, known := c.facts.Context.Lookup(q); !known || f.Link != "" {
				return &crossRefusal{s, "link", p + " may be a symbolic link into the base image, as far as is known of " + q + " in the build context", []Arg{{"path", p}}}
			}
		}
	}
	return nil
}

// behind are the paths of the context that may be what stands at p, below m, or at a directory on the way there.
func (m *made) behind(p string) (paths []string) {
	rel := strings.TrimPrefix(strings.TrimPrefix(p, m.path), "/")
	for _, src := range m.sources {
		for _, q := range []string{path.Join(src, rel), path.Join(path.Dir(src), rel), rel} {
			for ; q != "." && q != ""; q = path.Dir(q) {
				if !strings.ContainsAny(q, "*?[") {
					paths = append(paths, q)
				}
			}
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// crossWants are the paths of the context that link asks for.
func crossWants(p *plan.Plan, f *plan.Facts) (want []string) {
	if !crosses(f) {
		return nil
	}
	for st := range fromImages(p, f) {
		if c := newCrossing(p, f, st); c.kind == compiles || c.kind == downloads {
			c.ask = &want
			c.refusal(false)
		}
	}
	return want
}

// crossImages are the base images of which crossBuild would like to know whether they are the same on the build platform.
func crossImages(p *plan.Plan, f *plan.Facts, _ Options) (names []string) {
	if !crosses(f) {
		return nil
	}
	for st, name := range fromImages(p, f) {
		if _, ok := official(name, false); !ok {
			continue
		}
		if c := newCrossing(p, f, st); c.kind == compiles || c.kind == downloads {
			names = append(names, name)
		}
	}
	return names
}

// fromImages are the stages that start from an image, with its name, and that have no platform of their own.
func fromImages(p *plan.Plan, f *plan.Facts) iter.Seq2[*plan.Stage, string] {
	return func(yield func(*plan.Stage, string) bool) {
		for _, st := range p.Stages {
			if base, name, ok := p.Resolve(st, f); ok && base == nil && st.Def.Platform == "" && !yield(st, name) {
				return
			}
		}
	}
}

// rootOf is the stage that starts from an image and that st builds on in the end.
func rootOf(p *plan.Plan, f *plan.Facts, st *plan.Stage) *plan.Stage {
	for {
		base, _, ok := p.Resolve(st, f)
		if base == nil || !ok {
			return st
		}
		st = base
	}
}

// mountsOf are the mounts of a RUN with the variables in them expanded.
func mountsOf(p *plan.Plan, s *plan.Step, at *plan.State) ([]*instructions.Mount, error) {
	if !strings.Contains(s.Text, "--mount") {
		return nil, nil
	}
	text := s.Text + "\n"
	if p.Escape != parser.DefaultEscapeToken {
		text = "# escape=" + string(p.Escape) + "\n" + text
	}
	res, err := parser.Parse(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	cmd, err := instructions.ParseInstruction(res.AST.Children[0])
	if err != nil {
		return nil, err
	}
	run, ok := cmd.(*instructions.RunCommand)
	if !ok {
		return nil, fmt.Errorf("%q is no RUN", s.Text)
	}
	if err := run.Expand(func(word string) (string, error) {
		v, ok := at.Expand(word)
		if !ok {
			return "", errors.New("the value of " + word + " is not known")
		}
		return v, nil
	}); err != nil {
		return nil, err
	}
	return instructions.GetMounts(run), nil
}
