package engine

import (
	"runtime/debug"
	"sync"

	"github.com/moby/buildkit/version"
)

const buildkitModule = "github.com/moby/buildkit"

// Version returns the version of the BuildKit module that is linked in, such as "v0.33.1".
var Version = sync.OnceValue(func() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == buildkitModule {
				return m.Version
			}
		}
	}
	return version.Version
})

// BuildKit reports its version in the worker's description, in provenance and in the user agent; unlike a buildkitd, which
// sets it at link time, we know it from the build information.
func init() { version.Version, version.Package = Version(), buildkitModule }
