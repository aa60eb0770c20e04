package lint

import (
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/optbuild/optbuild/frontend/plan"
)

// images calls f for each image that the file names: bases, and what COPY --from and mounts take from.
func (c *check) images(f func(s *plan.Step, name, written string)) {
	for _, st := range c.p.Stages {
		if base, name, ok := c.p.Resolve(st, c.f); ok && base == nil && name != "scratch" && !c.f.Replaced(name) && !c.f.Replaced(st.Def.Name) {
			f(st.From, name, st.Def.BaseName)
		}
		for _, s := range st.Steps {
			for _, name := range plan.References(s.Cmd) {
				if !strings.Contains(name, "$") && c.p.Stage(name) == nil && !c.f.Replaced(name) && name != "context" && name != "scratch" {
					f(s, name, name)
				}
			}
		}
	}
}

func unpinnedBase(c *check) {
	c.images(func(s *plan.Step, name, written string) {
		ref, err := reference.ParseNormalizedNamed(name)
		if err != nil || !reference.IsNameOnly(ref) && tag(ref) != "latest" || digested(ref) {
			return
		}
		what := "has no tag"
		if tag(ref) == "latest" {
			what = "is named by the tag latest"
		}
		c.report(s, written, Finding{
			Message: name + " " + what + ": it is another image tomorrow",
			Remedy:  "name a version, such as " + reference.FamiliarName(ref) + ":VERSION",
		})
	})
}

func undigestedBase(c *check) {
	c.images(func(s *plan.Step, name, written string) {
		ref, err := reference.ParseNormalizedNamed(name)
		if err != nil || digested(ref) || reference.IsNameOnly(ref) || tag(ref) == "latest" {
			return
		}
		c.report(s, written, Finding{
			Message: name + " has no digest: its publisher may put another image under the tag",
			Remedy:  "where builds must be the same for ever, add the digest: " + name + "@sha256:…",
		})
	})
}

func tag(ref reference.Named) string {
	if t, ok := ref.(reference.Tagged); ok {
		return t.Tag()
	}
	return ""
}

func digested(ref reference.Named) bool {
	_, ok := ref.(reference.Digested)
	return ok
}

func addURLWithoutChecksum(c *check) {
	c.everyStep(func(_ *plan.Stage, _ int, s *plan.Step) {
		add, ok := s.Cmd.(*instructions.AddCommand)
		if !ok || add.Checksum != "" {
			return
		}
		for _, src := range add.SourcePaths {
			if repository, _, _ := strings.Cut(src, "#"); !strings.HasPrefix(src, "http://") && !strings.HasPrefix(src, "https://") || strings.HasSuffix(repository, ".git") {
				continue
			}
			c.report(s, src, Finding{
				Message: "nothing checks what this address serves",
				Remedy:  "give its checksum: ADD --checksum=sha256:… " + src,
			})
		}
	})
}
