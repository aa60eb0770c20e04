package plan

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

// pragma matches a comment line for optbuild: "# optbuild: off", "# optbuild: keep", "# optbuild: off=split-copy,link". Off and
// keep mean the same; off reads better on a file, keep on a line.
var pragma = regexp.MustCompile(`(?mi)^[ \t]*#[ \t]*optbuild:[ \t]*(off|keep)(?:[ \t]*=[ \t]*([a-z0-9,\- \t]+?))?[ \t]*\r?$`)

// pragmas finds the pragmas in the comments: in the head they hold for the whole file, above a FROM for its stage (above the
// first FROM they are the head's), above another step, or between its lines, for the step.
func (p *Plan) pragmas() {
	all := kept(p.Head, nil)
	for _, s := range p.Args {
		s.keep = kept(s.Lead, all)
	}
	for _, st := range p.Stages {
		st.From.keep = kept(st.From.Lead, all)
		st.From.shares = sharePragma.MatchString(st.From.Lead) || st.Index == 0 && len(p.Args) == 0 && sharePragma.MatchString(p.Head)
		for _, s := range st.Steps {
			lead := s.Lead
			if !strings.Contains(s.Text, "<<") { // a heredoc's lines are no comments
				lead += "\n" + s.Text
			}
			s.keep = kept(lead, st.From.keep)
		}
	}
}

// kept are the passes that the pragmas in comments forbid, and those in outer.
func kept(comments string, outer map[string]bool) map[string]bool {
	if !strings.Contains(strings.ToLower(comments), "optbuild:") {
		return outer
	}
	keep := map[string]bool{}
	for k := range outer {
		keep[k] = true
	}
	for _, m := range pragma.FindAllStringSubmatch(comments, -1) {
		if m[2] == "" {
			keep["*"] = true
		}
		for _, name := range strings.FieldsFunc(m[2], func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }) {
			keep[name] = true
		}
	}
	return keep
}

// Off are the names of passes, and of whatever else has a name, that pragmas forbid for the step, sorted; "*" is all.
func (s *Step) Off() []string { return slices.Sorted(maps.Keys(s.keep)) }

// sharePragma matches a comment line that says of a stage that it gives the same to all platforms: "# optbuild: share".
var sharePragma = regexp.MustCompile(`(?mi)^[ \t]*#[ \t]*optbuild:[ \t]*share[ \t]*\r?$`)

// Shares reports whether such a comment stands above the FROM. Above the first FROM it is the first stage's.
func (s *Step) Shares() bool { return s.shares }
