package frontend

import (
	"strings"

	"github.com/optbuild/optbuild/frontend/plan"
)

// LayersOffKey is where, in the result's metadata, stands what pragmas of the target stage forbid: names separated by commas, "*" for everything; it is there even if they forbid nothing. Whoever exports the
// image looks there for what it does to layers (squash, strip, strip-RULE); names of passes mean nothing to it.
const LayersOffKey = "optbuild.layers.off"

// layersOff are the names that pragmas forbid for the stage that is built.
func layersOff(p *plan.Plan, f *plan.Facts) string {
	st := p.Target(f)
	if st == nil {
		return ""
	}
	return strings.Join(st.From.Off(), ",")
}
