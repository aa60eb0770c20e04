package opt

import (
	"fmt"
	"path"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/frontend/plan"
)

// chosen looks at a stage for which the user chose a platform.
func (c *crossing) chosen(w *Work) {
	if c.kind != compiles {
		return
	}
	if v := strings.Trim(c.root.Def.Platform, "${}"); v != "BUILDPLATFORM" {
		if crosses(w.Facts) || w.Options.Fix {
			w.Missed(c.root.From, "platform-given", "FROM has a --platform other than $BUILDPLATFORM", Arg{"platform", c.root.Def.Platform})
		}
		return
	}
	if !crosses(w.Facts) && !w.Options.Fix {
		return
	}
	c.each(func(st *plan.Stage, s *plan.Step, at *plan.State) bool {
		for _, b := range c.buildsIn(s, at) {
			if b.arch == "" && c.leaves(b) {
				w.Warn(s, "no-goarch", "this stage runs on the build platform and go build is not told the target's: put ARG TARGETOS TARGETARCH above it and GOOS=$TARGETOS GOARCH=$TARGETARCH before go build, "+
					"or the images of other platforms get a binary of this one", Arg{"stage", st.Name()})
				return false
			}
		}
		return true
	})
}

// hardCoded warns of a GOARCH that is not that of every image.
func (c *crossing) hardCoded(w *Work) {
	var step *plan.Step
	arch := ""
	only := true
	c.each(func(st *plan.Stage, s *plan.Step, at *plan.State) bool {
		for _, b := range c.buildsIn(s, at) {
			if b.arch == "" || b.arch == markArch || b.arch == unknownArch || arch != "" && b.arch != arch {
				only = false
			} else if step == nil && c.leaves(b) {
				step, arch = s, b.arch
			}
		}
		return true
	})
	if step == nil || !only {
		return
	}
	targets := w.Facts.Targets
	if len(targets) == 0 && w.Facts.Build.OS != "" && !w.Options.Fix {
		targets = []ocispecs.Platform{w.Facts.Build}
	}
	for _, p := range targets {
		if p.Architecture != arch {
			w.Warn(step, "hard-coded-arch", fmt.Sprintf("GOARCH=%s is hard-coded: the image for %s gets a binary for %s", arch, platforms.FormatAll(platforms.Normalize(p)), arch), Arg{"arch", arch})
			return
		}
	}
}

// leaves reports whether an image for the target platform takes what the build made: some stage that is not on the build platform copies it, or a file
// that may be it.
func (c *crossing) leaves(b *goBuild) bool {
	found := false
	c.copies(func(st *plan.Stage, _ *plan.Step, _ *instructions.CopyCommand, from string) bool {
		top := rootOf(c.plan, c.facts, st)
		if top.Def.Platform != "" {
			return true
		}
		found = found || b.out == "" || from == b.out || strings.HasPrefix(from, b.out+"/") || strings.HasPrefix(b.out, strings.TrimSuffix(from, "/")+"/") || path.Dir(from) == path.Dir(b.out)
		return true
	})
	return found
}
