package diagnose

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

var missing = []func() *regexp.Regexp{
	lazily(`failed to calculate checksum of ref \S+ "/?([^"]*)": not found$`), // COPY, ADD and bind mounts
	lazily(`^lstat /(.*): no such file or directory$`),                        // COPY with patterns
}

// missingPath finds the path, relative to the root of its source, that a message says is missing.
func missingPath(text string) (string, bool) {
	for _, re := range missing {
		if m := re().FindStringSubmatch(text); m != nil {
			return m[1], true
		}
	}
	return "", false
}

// source is a path that an instruction takes from somewhere.
type source struct {
	path string // as it is written
	from string // a stage, an image, a named context, or "" for the build's context
}

// sources lists what an instruction takes.
func sources(c instructions.Command) (all []source) {
	switch c := c.(type) {
	case *instructions.CopyCommand:
		for _, p := range c.SourcePaths {
			all = append(all, source{p, c.From})
		}
	case *instructions.AddCommand:
		for _, p := range c.SourcePaths {
			all = append(all, source{p, ""})
		}
	case *instructions.RunCommand:
		for _, m := range instructions.GetMounts(c) {
			if m.Type == instructions.MountTypeBind {
				all = append(all, source{m.Source, m.From})
			}
		}
	}
	return all
}

// written finds the source that a missing path belongs to: the engine tells it cleaned and with variables replaced.
func written(all []source, missing string) (source, bool) {
	for _, s := range all {
		if strings.TrimPrefix(path.Join("/", s.path), "/") == missing {
			return s, true
		}
	}
	for _, s := range all { // a directory in front of a pattern, or a variable
		if strings.HasPrefix(strings.TrimPrefix(path.Join("/", s.path), "/"), missing+"/") {
			return s, true
		}
	}
	for _, s := range all {
		if strings.Contains(s.path, "$") {
			return source{missing, s.from}, true
		}
	}
	if len(all) > 0 {
		return source{missing, all[0].from}, true
	}
	return source{}, false
}

// explainMissing says why a path is not where an instruction looks for it; false if the instruction takes no files.
func (d *Diagnosis) explainMissing(missing string, s step, c Context) bool {
	src, ok := written(sources(s.command), missing)
	if !ok {
		return false
	}
	if src.from != "" {
		d.Message = s.text + ": " + d.missingFrom(missing, src, s, c)
		return true
	}
	d.Message = s.text + ": " + d.missingInContext(missing, src, c)
	return true
}

func (d *Diagnosis) missingFrom(missing string, src source, s step, c Context) string {
	if files, ok := c.Named[strings.ToLower(src.from)]; ok {
		d.suggest(files, missing)
		return fmt.Sprintf("%s is not in the build context %s", missing, src.from)
	}
	if !strings.HasPrefix(src.path, "/") {
		d.hint("a path in another stage or image starts at its root directory, whatever WORKDIR is there")
	}
	for i, stage := range s.stages {
		if n, err := strconv.Atoi(src.from); strings.EqualFold(stage.Name, src.from) || err == nil && n == i {
			return fmt.Sprintf("stage %s has no /%s", src.from, missing)
		}
	}
	return fmt.Sprintf("image %s has no /%s", src.from, missing)
}

func (d *Diagnosis) missingInContext(missing string, src source, c Context) string {
	if c.None {
		d.hint("the Dockerfile came alone, on standard input: name a directory as well (optbuild build -f - DIR)")
		return "there is no build context to take " + missing + " from"
	}
	if outside(src.path) {
		d.hint("an instruction sees the build context only: build from a directory above (optbuild build -f DIR/Dockerfile ABOVE), " +
			"or name another context (--build-context NAME=DIR, then COPY --from=NAME)")
		return fmt.Sprintf("%s is outside of the build context", src.path)
	}
	r, excluded := c.Ignore.excludes(missing)
	if c.Files == nil {
		return fmt.Sprintf("%s is not in the build context", missing)
	}
	// Lstat: a link whose target is missing is in the context.
	if fi, err := lstat(c.Files, missing); err == nil {
		switch {
		case excluded:
			d.hint(fmt.Sprintf("remove that line, or add the line !%s after it", missing))
			return fmt.Sprintf("%s is excluded from the build context by %s:%d (%s)", missing, c.Ignore.Name, r.line, r.pattern)
		case fi.Mode()&fs.ModeSymlink != 0:
			return fmt.Sprintf("%s is a symbolic link whose target is not in the build context", missing)
		}
		return fmt.Sprintf("%s is not in the build context, though it is in its directory now", missing)
	}
	if strings.HasPrefix(src.path, "/") {
		d.hint("a leading / is the root of the build context, not of this machine")
	}
	if !d.suggest(c.Files, missing) && excluded {
		d.hint(fmt.Sprintf("%s:%d (%s) would exclude it, too", c.Ignore.Name, r.line, r.pattern))
	}
	return fmt.Sprintf("%s is not in the build context", missing)
}

// suggest adds a hint with the path that the user may have meant.
func (d *Diagnosis) suggest(files fs.FS, missing string) bool {
	found := nearest(files, missing)
	switch {
	case found == "" || found == missing:
		return false
	case path.Base(found) == path.Base(missing):
		d.hint(fmt.Sprintf("there is %s; paths are relative to the build context, not to the Dockerfile", found))
	default:
		d.hint(fmt.Sprintf("did you mean %s?", found))
	}
	return true
}

func (d *Diagnosis) hint(line string) { d.Hints = append(d.Hints, line) }

// outside says that a path as it is written leads out of its root directory.
func outside(p string) bool {
	p = path.Clean(strings.TrimLeft(p, "/"))
	return p == ".." || strings.HasPrefix(p, "../")
}

func lstat(files fs.FS, name string) (fs.FileInfo, error) {
	if l, ok := files.(fs.ReadLinkFS); ok {
		return l.Lstat(name)
	}
	return fs.Stat(files, name)
}
