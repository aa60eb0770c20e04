package opt

import (
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/optbuild/optbuild/frontend/plan"
)

// link gives a COPY --link: its layer is then made on its own and laid on top, so that it stays as it is when a step above it changes.
//
// Before: a new app copies the certificates again, or the other way round.
//
//	FROM scratch
//	COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
//	COPY --from=build /out/app /app
//
// After:
//
//	FROM scratch
//	COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
//	COPY --link --from=build /out/app /app
//
// BuildKit copies into an empty directory and merges that with what is there (dockerfile2llb's convert_copy.go). So what is there counts
// no more for the copy, and loses where both have something: a symlink above the destination is replaced by a directory, the directories
// above it become root's with mode 755, or those of --chown; a directory at the destination is not seen, so a file is not put into it.
// With --chmod BuildKit ignores --link.
//
// Narrow: it can only be told where all that is there is known. That is the case in stages that begin with scratch, and only as long as nothing
// runs in them: each COPY puts something to one place, and makes the directories above it.
func link(w *Work) {
	for _, st := range w.Plan.Stages {
		list, image := above(w, st, len(st.Steps))
		if image != "scratch" || len(st.Steps) == 0 {
			continue
		}
		t := tree{made: map[string]bool{}}
		inherited := len(list) - len(st.Steps)
		for i, s := range list {
			if i >= inherited {
				linkStep(w, st, i-inherited, s, &t)
			}
			t.apply(w, s)
		}
	}
}

func linkStep(w *Work, st *plan.Stage, i int, s earlier, t *tree) {
	c, ok := s.Cmd.(*instructions.CopyCommand)
	if !ok || c.Link || c.Chmod != "" || strings.Contains(s.Text, "--link") || t.empty() {
		return
	}
	if name, why := t.refuses(w, c, &s.at); name != "" {
		w.Missed(s.Step, name, "COPY --link could mean something else here: "+why)
		return
	}
	text := copyKeyword().ReplaceAllStringFunc(s.Text, func(keyword string) string { return keyword + " --link" })
	made, err := w.Plan.NewStep(text, s.Step)
	if err != nil || !sameSources(c, made) || !made.Cmd.(*instructions.CopyCommand).Link {
		return
	}
	w.Do(Change{
		Steps: []*plan.Step{s.Step}, Name: "added", Message: "nothing above it matters to this COPY: with --link its layer stays when they change",
		Apply: func() { st.Steps[i] = made },
	})
}

// tree is what is known of the files of a stage.
type tree struct {
	unknown bool            // a step ran, or copied to the root: anything may be anywhere
	made    map[string]bool // directories that were made on the way: true if they are root's with mode 755
	filled  []string        // what was copied: a file, or a directory with whatever is in it
}

func (t *tree) empty() bool { return !t.unknown && len(t.made)+len(t.filled) == 0 }

// apply takes in what a step does.
func (t *tree) apply(w *Work, s earlier) {
	switch c := s.Cmd.(type) {
	case *instructions.RunCommand:
		t.unknown = true
	case *instructions.WorkdirCommand:
		dir, ok := s.at.Expand(c.Path)
		if !path.IsAbs(dir) {
			dir, ok = path.Join(s.at.Dir, dir), ok && s.at.DirOK
		}
		t.makes(path.Clean(dir), s.at.UserOK && slices.Contains([]string{"", "0", "0:0", "root", "root:root"}, s.at.User))
		t.unknown = t.unknown || !ok
	case *instructions.AddCommand:
		t.fills(c.DestPath, "", c.Chown, c.Chmod, c.Link, &s.at)
	case *instructions.CopyCommand:
		t.fills(c.DestPath, oneFile(w, c, &s.at), c.Chown, c.Chmod, c.Link, &s.at)
	}
}

// makes notes that a directory and those above it are there.
func (t *tree) makes(dir string, plain bool) {
	for ; dir != "/" && dir != "."; dir = path.Dir(dir) {
		if _, ok := t.made[dir]; !ok && !t.covers(dir) {
			t.made[dir] = plain
		}
	}
}

// covers reports whether a path is in what was copied.
func (t *tree) covers(name string) bool {
	return slices.ContainsFunc(t.filled, func(f string) bool { return within(name, f) })
}

func (t *tree) fills(dest, file, chown, chmod string, linked bool, at *plan.State) {
	name, ok := filledBy(dest, file, at)
	if !ok || name == "/" {
		t.unknown = true
		return
	}
	for dir := path.Dir(name); linked && !rootOwns(chown) && dir != "/"; dir = path.Dir(dir) {
		t.made[dir] = false // laid over what was there
	}
	t.makes(path.Dir(name), rootOwns(chown) && (chmod == "" || strings.TrimPrefix(chmod, "0") == "755"))
	t.filled = append(t.filled, name)
}

// filledBy is the path that a COPY fills: the destination, or, for one file that goes into a directory, the file in it.
func filledBy(dest, file string, at *plan.State) (string, bool) {
	value, ok := at.Expand(dest)
	if !ok || value == "" || strings.Contains(value, "\\") || !path.IsAbs(value) && !at.DirOK {
		return "", false
	}
	name := path.Join("/", value)
	if !path.IsAbs(value) {
		name = path.Join(at.Dir, value)
	}
	if strings.HasSuffix(value, "/") && file != "" {
		name = path.Join(name, file)
	}
	return name, true
}

// oneFile is the name of the file that a COPY copies, if it is known to be one.
func oneFile(w *Work, c *instructions.CopyCommand, at *plan.State) string {
	if len(c.SourceContents) == 1 && len(c.SourcePaths) == 0 {
		return path.Base(c.SourceContents[0].Path)
	}
	if c.From != "" || c.Parents || len(c.ExcludePatterns) > 0 || len(c.SourcePaths) != 1 || len(c.SourceContents) > 0 {
		return ""
	}
	src, ok := at.Expand(c.SourcePaths[0])
	if !ok || hasWildcard(src) {
		return ""
	}
	switch kindOf(w.Facts.Context, contextName(src)) {
	case plainFile, packedFile, unreadFile:
		return path.Base(contextName(src))
	}
	return ""
}

// rootOwns reports whether --chown leaves files root's.
func rootOwns(chown string) bool {
	return chown == "" || chown == "0" || chown == "0:0"
}

// refuses says what speaks against --link.
func (t *tree) refuses(w *Work, c *instructions.CopyCommand, at *plan.State) (name, why string) {
	if t.unknown {
		return "unknown-files", "what the steps above made is not known"
	}
	if c.Parents {
		return "parents", "the directories of --parents have modes of their own"
	}
	chown, ok := at.Expand(c.Chown)
	if !ok || strings.Trim(chown, "0123456789:") != "" {
		return "owner", "the name of --chown is looked up in the files that are there; use its number"
	}
	to, ok := filledBy(c.DestPath, oneFile(w, c, at), at)
	if !ok || to == "/" {
		return "destination", "where the files go is not known, or they go to the root"
	}
	for _, f := range t.filled {
		if within(to, f) || within(f, to) {
			return "overlap", "a COPY above fills " + f
		}
	}
	if _, there := t.made[to]; there {
		return "directory", "there is a directory " + to + " already"
	}
	for dir := path.Dir(to); dir != "/"; dir = path.Dir(dir) {
		plain, there := t.made[dir]
		if there && (!plain || !rootOwns(chown)) {
			return "directory", dir + " would get another owner or mode"
		}
	}
	return "", ""
}

// linkWants are the files of the context that go into a directory of a stage that begins with scratch.
func linkWants(p *plan.Plan, f *plan.Facts) (want []string) {
	for _, st := range p.Stages {
		list, image := above(&Work{Plan: p, Facts: f}, st, len(st.Steps))
		if image != "scratch" {
			continue
		}
		for _, s := range list {
			c, ok := s.Cmd.(*instructions.CopyCommand)
			if !ok || c.From != "" || len(c.SourcePaths) != 1 || !strings.HasSuffix(c.DestPath, "/") {
				continue
			}
			if src, ok := s.at.Expand(c.SourcePaths[0]); ok && contextName(src) != "." && !hasWildcard(src) {
				want = append(want, contextName(src))
			}
		}
	}
	return want
}
