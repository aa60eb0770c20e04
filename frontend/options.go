package frontend

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/optbuild/optbuild/frontend/opt"
)

// The compiler's options, as frontend attributes. Users of `# syntax=` can pass nothing but build arguments, so each has one of these as well
// (OPTBUILD_OPTIMIZE, OPTBUILD_OPTIMIZE_DISABLE, OPTBUILD_REWRITES, OPTBUILD_SHARE_STAGE), and the level an environment variable of the frontend's process.
const (
	AttrOptimize = "optimize"          // off, safe or all; safe if it is not given
	AttrDisable  = "optimize-disable"  // passes, separated by commas
	AttrRewrites = "optimize-rewrites" // do only the first N rewrites
	AttrShare    = "share-stage"       // stages that give the same to all platforms, separated by commas
	AttrChecked  = "share-checked"     // the exporter looks for what SharedKey is about
	AttrProject  = "optimize-project"  // names the project, so that what is known of equal steps of several projects is told apart
)

// OptimizeEnv is the environment variable with the level that holds unless the build says otherwise.
const OptimizeEnv = "OPTBUILD_OPTIMIZE"

func options(opts map[string]string) (o opt.Options, err error) {
	o.Level = opt.Level(attr(opts, AttrOptimize, OptimizeEnv))
	if o.Level == "" {
		o.Level = opt.Level(os.Getenv(OptimizeEnv))
	}
	if o.Level == "" {
		o.Level = opt.Safe
	}
	o.Disabled = names(attr(opts, AttrDisable, "OPTBUILD_OPTIMIZE_DISABLE"))
	o.Checked, _ = strconv.ParseBool(opts[AttrChecked]) // whatever else it is, it is not said
	o.Share = names(attr(opts, AttrShare, "OPTBUILD_SHARE_STAGE"))
	if n := attr(opts, AttrRewrites, "OPTBUILD_REWRITES"); n != "" {
		o.Rewrites, err = strconv.Atoi(n)
		if err != nil || o.Rewrites < 0 {
			return o, fmt.Errorf("%s=%s: want a number from 0", AttrRewrites, n)
		}
		if o.Rewrites == 0 {
			o.Rewrites = -1
		}
	}
	return o, o.Check()
}

// names are separated by commas.
func names(text string) (list []string) {
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name != "" {
			list = append(list, name)
		}
	}
	return list
}

func attr(opts map[string]string, name, arg string) string {
	if v, ok := opts[name]; ok {
		return v
	}
	return opts["build-arg:"+arg]
}
