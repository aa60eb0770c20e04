package opt

import (
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/script"
)

// earlier is a step above, with the state that it starts in.
type earlier struct {
	*plan.Step
	at plan.State
}

// above are the steps that ran before step i, those of the stages that the stage builds on first, and the image below them all: "" if that is not
// known.
func above(w *Work, st *plan.Stage, i int) (list []earlier, image string) {
	base, image, ok := w.Plan.Resolve(st, w.Facts)
	if !ok || w.Facts.Named[image] || st.Def.Name != "" && w.Facts.Named[st.Def.Name] {
		base, image = nil, ""
	}
	if base != nil {
		list, image = above(w, base, len(base.Steps))
	}
	states := w.Plan.Flow(st, w.Facts)
	for j, s := range st.Steps[:i] {
		list = append(list, earlier{s, states[j]})
	}
	return list, image
}

// target is where a COPY of one file puts it.
type target struct {
	dir     string // the directory, absolute
	name    string // the file's own path
	certain bool   // name is not a directory of the image, or else the build fails; without it the file may land below name
}

// destination finds out where a COPY puts a file of that name. ok is false if that depends on what is not known.
func destination(dest, file string, at *plan.State, list []earlier) (p target, ok bool) {
	value, ok := at.Expand(dest)
	if !ok || value == "" || !at.DirOK && !path.IsAbs(value) || strings.ContainsAny(value, "\\\x00") {
		return target{}, false
	}
	abs := path.Join("/", value)
	if !path.IsAbs(value) {
		abs = path.Join(at.Dir, value)
	}
	switch {
	case strings.HasSuffix(value, "/"), present(abs, at, list):
		return target{abs, path.Join(abs, file), true}, true
	case strings.HasSuffix(value, "/.") || abs == "/":
		return target{}, false
	}
	return target{path.Dir(abs), abs, isFile(abs, list)}, true
}

// present reports whether a directory is certain to be there: the root, and the working directory with those above it.
func present(dir string, at *plan.State, list []earlier) bool {
	return dir == "/" || within(at.Dir, dir) && settled(at, list)
}

// settled reports whether the working directory is certain to be there: a WORKDIR made it, and no RUN since can have removed it. BuildKit
// makes a working directory that is missing when a RUN starts, which a step must not be relieved of unnoticed.
func settled(at *plan.State, list []earlier) bool {
	if at.Dir == "/" {
		return true
	}
	if !at.DirOK {
		return false
	}
	for i := len(list) - 1; i >= 0; i-- {
		switch c := list[i].Cmd.(type) {
		case *instructions.WorkdirCommand:
			return true // the last one is the current one
		case *instructions.RunCommand:
			if !leaves(at.Dir, c, &list[i].at) {
				return false
			}
		}
	}
	return false
}

// tidy are programs that do not remove the directory that they work in, besides the steady ones.
var tidy = strings.Fields("npm yarn pnpm pip pip3 bundle gem composer poetry uv pipenv cargo go mvn gradle dotnet apt-get apt apk dnf yum microdnf dpkg curl wget tar unzip make cmake git")

// leaves reports whether a RUN is known not to remove a directory.
func leaves(dir string, run *instructions.RunCommand, at *plan.State) bool {
	sh, err := scriptOf(run, at)
	if err != nil {
		return false
	}
	moves := slices.ContainsFunc(sh.Hazards(), func(h script.Hazard) bool {
		return h.Kind == script.Cd || h.Kind == script.Eval || h.Kind == script.Source || h.Kind == script.Alias || h.Kind == script.Trap
	})
	for _, c := range sh.Commands() {
		if len(c.Words) == 0 || c.Function {
			continue
		}
		switch c.Name() {
		case "rm", "rmdir", "mv", "unlink", "find":
			if !spares(c, dir, at.Dir, moves) {
				return false
			}
		default:
			if readingOf(c) == anything && !slices.Contains(tidy, c.Name()) {
				return false
			}
		}
	}
	return true
}

// spares reports whether no operand of a command that removes names the directory or one above it.
func spares(c script.Command, dir, work string, moves bool) bool {
	for _, w := range c.Args() {
		name := w.Value
		if !w.Literal {
			// the part before the pattern: what matches is below it
			end := strings.IndexAny(w.Raw, `*?[`)
			if end <= 0 || strings.ContainsAny(w.Raw, "$`\"'\\~{") {
				return false
			}
			name = path.Dir(w.Raw[:end] + "x")
			if path.IsAbs(name) && path.Clean(name) != dir && within(dir, path.Clean(name)) || !path.IsAbs(name) && (moves || !within(path.Join(work, name), dir)) {
				return false
			}
			continue
		}
		if strings.HasPrefix(name, "-") || strings.HasPrefix(name, "+") {
			continue
		}
		if !path.IsAbs(name) {
			if moves {
				return false
			}
			name = path.Join(work, name)
		}
		if within(dir, path.Clean(name)) {
			return false
		}
	}
	return true
}

// programDirs hold no directories: the Filesystem Hierarchy Standard (3.0) says so of /bin, /usr/bin and /usr/sbin, and that of the others is assumed.
var programDirs = []string{"/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"}

// programName is what nobody calls a directory: scripts by their extension, and entry points.
var programName = lazily(`^[A-Za-z0-9._-]+\.(sh|bash|py|pl|rb|js|mjs|cjs|php|jar|exe|bin|service|conf|cfg|ini|json|ya?ml|toml|xml|crt|pem|txt)$|^(.*-)?entrypoint$`)

// isFile reports whether a path is none of a directory: by where it is or by its name, if no step above says anything about that name. It
// is a matter of convention; what the image holds nobody knows.
func isFile(name string, list []earlier) bool {
	base := path.Base(name)
	if !slices.Contains(programDirs, path.Dir(name)) && !programName().MatchString(base) {
		return false
	}
	for _, s := range list {
		if strings.Contains(s.Text, base) {
			return false
		}
		switch c := s.Cmd.(type) {
		case *instructions.CopyCommand:
			if bringsTree(c.DestPath, name, &s.at) {
				return false
			}
		case *instructions.AddCommand:
			if bringsTree(c.DestPath, name, &s.at) {
				return false
			}
		}
	}
	return true
}

// bringsTree reports whether what is copied to dest may lie above name, and so hold a directory of that name.
func bringsTree(dest, name string, at *plan.State) bool {
	value, ok := at.Expand(dest)
	if !ok || !at.DirOK {
		return true
	}
	abs := path.Join("/", value)
	if !path.IsAbs(value) {
		abs = path.Join(at.Dir, value)
	}
	return within(name, abs)
}
