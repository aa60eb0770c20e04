package frontend

import (
	"context"
	"maps"
	"regexp"
	"strings"

	"github.com/distribution/reference"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/dockerfile/version"
	"github.com/moby/buildkit/frontend/gateway/client"
	"golang.org/x/mod/semver"
)

// A `# syntax=` line, or the build argument BUILDKIT_SYNTAX, names an image that is to read the Dockerfile. Nearly always it
// is docker/dockerfile:1, BuildKit's own frontend, which is linked into this binary: that one is served here, without
// pulling and starting an image. Every other image is pulled and run, as BuildKit does.

// withSyntax is a gateway client that answers for the frontend images that this package stands for.
type withSyntax struct{ client.Client }

func (c withSyntax) Solve(ctx context.Context, req client.SolveRequest) (*client.Result, error) {
	if req.Frontend == "gateway.v0" && serves(req.FrontendOpt["source"]) {
		return dockerfile.Build(ctx, withCommandLine{c, req.FrontendOpt["cmdline"]})
	}
	return c.Client.Solve(ctx, req)
}

// withCommandLine tells the frontend that it is the one that the syntax line asked for, which ends the search for another.
type withCommandLine struct {
	client.Client
	line string
}

func (c withCommandLine) BuildOpts() client.BuildOpts {
	o := c.Client.BuildOpts()
	o.Opts = maps.Clone(o.Opts)
	if o.Opts == nil {
		o.Opts = map[string]string{}
	}
	o.Opts["cmdline"] = c.line
	return o
}

// channel matches the tags of docker/dockerfile that follow a line of releases: 1, 1.7, 1.7.1, and the same with -labs or, in
// old files, -experimental.
var channel = regexp.MustCompile(`^1(\.[0-9]+){0,2}(-labs|-experimental)?$`)

// serves reports whether this package stands for the frontend image ref: docker/dockerfile up to the version that is linked
// in. Its releases only ever add to the language, so an older one's files mean the same here. The labs channel is served as
// well: in the version that is linked in, no feature hides behind a build tag.
//
// Not served are a newer version, whose additions are missing here; a digest, which asks for exactly that image; and
// docker/dockerfile-upstream, which is development's.
func serves(ref string) bool {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil || named.Name() != "docker.io/docker/dockerfile" {
		return false
	}
	if _, pinned := named.(reference.Digested); pinned {
		return false
	}
	tag := reference.TagNameOnly(named).(reference.Tagged).Tag()
	switch tag {
	case "latest", "labs", "experimental":
		return true
	}
	if !channel.MatchString(tag) {
		return false
	}
	number, _, _ := strings.Cut(tag, "-")
	return semver.Compare(semver.MajorMinor("v"+number), semver.MajorMinor("v"+version.Version())) <= 0 || number == "1"
}
