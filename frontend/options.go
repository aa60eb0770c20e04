package frontend

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/optbuild/optbuild/frontend/opt"
)

// The compiler's options, as frontend attributes. Users of `# syntax=` can pass nothing but build arguments, so each has one of these as well
// (OPTBUILD_OPTIMIZE, OPTBUILD_OPTIMIZE_DISABLE, OPTBUILD_REWRITES), and the level an environment variable of the frontend's process.
const (
	AttrOptimize = "optimize"          // off, safe or all; safe if it is not given
	AttrDisable  = "optimize-disable"  // passes, separated by commas
	AttrRewrites = "optimize-rewrites" // do only the first N rewrites
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
	for _, name := range strings.Split(attr(opts, AttrDisable, "OPTBUILD_OPTIMIZE_DISABLE"), ",") {
		if name = strings.TrimSpace(name); name != "" {
			o.Disabled = append(o.Disabled, name)
		}
	}
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

func attr(opts map[string]string, name, arg string) string {
	if v, ok := opts[name]; ok {
		return v
	}
	return opts["build-arg:"+arg]
}
