package opt

import (
	"fmt"
	"maps"
	"slices"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/optbuild/optbuild/frontend/plan"
)

// addToCopy makes an ADD that only copies a COPY. ADD fetches URLs and git repositories and unpacks archives of the context; files that are none, and
// directories, whatever is in them, it copies as COPY does. People need not wonder, and other passes know COPY.
//
// Before:
//
//	ADD app.conf /etc/
//
// After:
//
//	COPY app.conf /etc/
//
// Whether a file is an archive is up to its content, whatever its name: it has to be known of each file, of those that a pattern matches, too.
func addToCopy(w *Work) {
	for _, st := range w.Plan.Stages {
		states := w.Plan.Flow(st, w.Facts)
		for i, s := range st.Steps {
			c, ok := s.Cmd.(*instructions.AddCommand)
			if !ok || c.Checksum != "" || c.KeepGitDir != nil || c.Unpack != nil && *c.Unpack {
				continue
			}
			name, why := onlyCopies(w, c, &states[i])
			if why != "" {
				w.Missed(s, name, "cannot make this a COPY: "+why)
			}
			if name != "" {
				continue
			}
			text := addKeyword().ReplaceAllString(s.Text, "${1}COPY$3")
			if c.Unpack != nil {
				text = unpackFlag().ReplaceAllString(text, "$1")
			}
			made, err := w.Plan.NewStep(text, s)
			if err != nil || !sameCopy(c, made) {
				continue
			}
			w.Do(Change{
				Steps: []*plan.Step{s}, Name: "replaced", Message: "nothing here is fetched or unpacked: COPY does the same",
				Apply: func() { st.Steps[i] = made },
			})
		}
	}
}

var (
	addKeyword = lazily(`^(\s*)([Aa][Dd][Dd])(\s|\\|` + "`" + `)`)
	unpackFlag = lazily(`^(\s*\S+(?:\s+--\S+)*?)\s+--unpack=false\b`)
)

// onlyCopies reports whether all that the ADD names is known to be only copied: name is empty then, else it names what is in the way; why is empty
// if that is what ADD is for.
func onlyCopies(w *Work, c *instructions.AddCommand, at *plan.State) (name, why string) {
	for _, src := range c.SourcePaths {
		value, ok := at.Expand(src)
		if !ok {
			return "unknown-variable", src + " depends on a value that is not known"
		}
		found := sources(w.Facts.Context, value)
		for _, file := range slices.Sorted(maps.Keys(found)) {
			kind := found[file]
			if c.Unpack != nil && kind != remoteSource { // --unpack=false
				continue
			}
			switch kind {
			case plainFile, directory:
			case packedFile, remoteSource, absentSource:
				return "needed", ""
			case linkSource:
				return "symlink", file + " is a symlink"
			case otherSource:
				return "special-file", file + " is no regular file"
			case unreadFile:
				return "unread-file", "whether " + file + " is an archive is not known"
			default:
				return "unknown-file", "what " + file + " is in the context is not known"
			}
		}
	}
	return "", ""
}

// sameCopy reports whether the made step copies what the ADD names, with the same flags.
func sameCopy(c *instructions.AddCommand, s *plan.Step) bool {
	n, ok := s.Cmd.(*instructions.CopyCommand)
	return ok && n.From == "" && !n.Parents && fmt.Sprint(n.SourcesAndDest, n.Chown, n.Chmod, n.Link, n.ExcludePatterns) == fmt.Sprint(c.SourcesAndDest, c.Chown, c.Chmod, c.Link, c.ExcludePatterns)
}

// addWants are the local sources of ADD.
func addWants(p *plan.Plan, f *plan.Facts) (want []string) {
	for _, st := range p.Stages {
		var states []plan.State
		for i, s := range st.Steps {
			c, ok := s.Cmd.(*instructions.AddCommand)
			if !ok || c.Unpack != nil {
				continue
			}
			if states == nil {
				states = p.Flow(st, f)
			}
			for _, src := range c.SourcePaths {
				if value, ok := states[i].Expand(src); ok && !remote(value) && contextName(value) != "." {
					want = append(want, contextName(value))
				}
			}
		}
	}
	return want
}
