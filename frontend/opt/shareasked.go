package opt

import (
	"slices"
	"strings"

	"github.com/optbuild/optbuild/frontend/plan"
)

// asked is the stage of the family that the user wants to be shared, nil if there is none.
func (c *crossing) asked() *plan.Stage {
	for _, st := range c.family {
		if st.From.Shares() || slices.ContainsFunc(c.options.Share, func(name string) bool { return SharedStage(c.plan, name) == st }) {
			return st
		}
	}
	return nil
}

// shareAsked shares a stage because the user says that what is copied from it is the same for all platforms. What would make that no more than a wish is warned about:
// then the stage runs as it is written.
func (c *crossing) shareAsked(w *Work, st *plan.Stage) {
	if c.root.Def.Platform != "" {
		if v := strings.Trim(c.root.Def.Platform, "${}"); v != "BUILDPLATFORM" {
			w.Warn(st.From, "platform-given", "stage "+st.Name()+" is not shared: FROM has a --platform other than $BUILDPLATFORM")
		}
		return
	}
	r := c.refusalAsked(st)
	if r == nil {
		c.share(w, ByUser)
		return
	}
	w.Warn(r.step, r.name, "stage "+st.Name()+" is not shared: "+r.message, r.args...)
}

func (c *crossing) refusalAsked(st *plan.Stage) *crossRefusal {
	if t := c.plan.Target(c.facts); t != nil && slices.Contains(c.family, t) {
		if t == st {
			return &crossRefusal{st.From, "target", "it is the stage that is built, and its image is that of each platform", nil}
		}
		return &crossRefusal{st.From, "target", "stage " + t.Name() + ", which is built, starts from the same stage", nil}
	}
	if r := c.file(); r != nil {
		return r
	}
	name, r := c.image()
	if r != nil {
		return r
	}
	img, r := c.everywhere(name)
	if r != nil {
		return r
	}
	if r := c.triggers(name, img); r != nil {
		return r
	}
	for _, st := range c.family {
		for _, s := range st.Steps {
			if r := namesPlatform(s); r != nil {
				return r
			}
		}
	}
	return nil
}
