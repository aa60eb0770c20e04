// Command optbuild-frontend is optbuild's Dockerfile frontend as BuildKit starts it from an image: the program that `# syntax=` names.
//
// It is the frontend that optbuild itself uses, behind BuildKit's gateway: BuildKit runs it in a container without network, talks to it over its
// standard streams, and hands it the build's options in its environment. What the passes may do is said by the frontend attributes optimize, optimize-disable
// and optimize-rewrites, or by build arguments (OPTBUILD_OPTIMIZE, OPTBUILD_OPTIMIZE_DISABLE, OPTBUILD_REWRITES), which is all that users of Docker can pass.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/moby/buildkit/frontend/gateway/grpcclient"
	"github.com/moby/buildkit/util/appcontext"
	_ "github.com/moby/buildkit/util/grpcutil/encoding/proto" // the codec of BuildKit's own frontend

	"github.com/optbuild/optbuild/frontend"
)

// version is set by the linker.
var version = "dev"

func main() {
	show := flag.Bool("version", false, "print the version")
	flag.Parse()
	if *show {
		fmt.Println("optbuild-frontend", version)
		return
	}
	if _, ok := os.LookupEnv("BUILDKIT_SESSION_ID"); !ok {
		fmt.Fprintln(os.Stderr, "optbuild-frontend: BuildKit starts this program; name its image in the first line of a Dockerfile: # syntax=IMAGE")
		os.Exit(2)
	}
	if err := grpcclient.RunFromEnvironment(appcontext.Context(), frontend.Build); err != nil {
		fmt.Fprintln(os.Stderr, "optbuild-frontend:", err)
		os.Exit(1)
	}
}
