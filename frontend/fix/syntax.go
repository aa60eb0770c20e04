package fix

import (
	"fmt"
	"regexp"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"golang.org/x/mod/semver"

	"github.com/optbuild/optbuild/frontend/plan"
)

// feature is something of the language that came with a version of docker/dockerfile.
type feature struct {
	name, version string
	used          func(instructions.Command) bool
}

// features are those that passes write. https://github.com/moby/buildkit/blob/master/frontend/dockerfile/docs/reference.md
var features = []feature{
	{"RUN --mount", "1.2", func(c instructions.Command) bool {
		r, ok := c.(*instructions.RunCommand)
		return ok && len(instructions.GetMounts(r)) > 0
	}},
	{"COPY --chmod", "1.2", func(c instructions.Command) bool {
		cp, ok := c.(*instructions.CopyCommand)
		return ok && cp.Chmod != ""
	}},
	{"COPY --link", "1.4", func(c instructions.Command) bool {
		cp, ok := c.(*instructions.CopyCommand)
		return ok && cp.Link
	}},
	{"COPY --exclude", "1.19", func(c instructions.Command) bool {
		cp, ok := c.(*instructions.CopyCommand)
		return ok && len(cp.ExcludePatterns) > 0
	}},
	{"COPY --parents", "1.20", func(c instructions.Command) bool {
		cp, ok := c.(*instructions.CopyCommand)
		return ok && cp.Parents
	}},
}

var numbered = regexp.MustCompile(`^1\.[0-9]+(?:\.[0-9]+)?$`)

// tooOld says what q uses and p did not that the version of the language that the file asks for does not have.
func tooOld(p, q *plan.Plan) (list []string) {
	ref, _, _, ok := parser.DetectSyntax(p.Source)
	if !ok {
		return nil
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil
	}
	t, ok := named.(reference.Tagged)
	if !ok || !numbered.MatchString(t.Tag()) {
		return nil
	}
	for _, f := range features {
		if semver.Compare("v"+t.Tag(), "v"+f.version) < 0 && uses(q, f) && !uses(p, f) {
			list = append(list, fmt.Sprintf("%s needs docker/dockerfile:%s, and the file asks for %s: change its syntax line to docker/dockerfile:1", f.name, f.version, t.Tag()))
		}
	}
	return list
}

func uses(p *plan.Plan, f feature) bool {
	for _, st := range p.Stages {
		for _, s := range st.Steps {
			if f.used(s.Cmd) {
				return true
			}
		}
	}
	return false
}
