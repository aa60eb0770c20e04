// Package frontend turns a Dockerfile into LLB.
//
// What comes in is BuildKit's gateway client (the build's context, options and files); what goes out is a gateway result.
// The seam is BuildKit's own [client.BuildFunc], so the same frontend runs inside optbuild's engine, inside a gateway image
// and inside a client of a foreign BuildKit. The package imports nothing else of optbuild.
//
// Today every Dockerfile is lowered by BuildKit's own frontend, so an image means exactly what BuildKit makes of it.
package frontend

import (
	"context"

	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/gateway/client"
)

// Name is the frontend's name in solve requests: BuildKit's, so that provenance and external clients find what they expect.
const Name = "dockerfile.v0"

// Build builds a Dockerfile. It satisfies client.BuildFunc.
func Build(ctx context.Context, c client.Client) (*client.Result, error) {
	return dockerfile.Build(ctx, withSyntax{c})
}
