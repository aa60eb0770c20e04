// Package frontend turns a Dockerfile into LLB.
//
// What comes in is BuildKit's gateway client (the build's context, options and files); what goes out is a gateway result.
// The seam is BuildKit's own [client.BuildFunc], so the same frontend runs inside optbuild's engine, inside a gateway image
// and inside a client of a foreign BuildKit. The package imports nothing else of optbuild.
//
// It is a small compiler: the Dockerfile is read into a plan (package plan), passes rewrite the plan (package opt), and the plan prints as a Dockerfile
// again, which BuildKit's own frontend lowers. That frontend is not told: Build hands it a gateway client whose Dockerfile is the rewritten one and which maps
// positions back to the user's lines. So whatever BuildKit's frontend can do it does here, and with the optimiser off nothing stands in between.
//
// Four nets lie below the passes. What BuildKit says of the user's own file is what the user hears: it is converted as well, its errors end the build
// and its warnings are the ones that are shown. A rewritten file that BuildKit does not convert is a bug of ours: the build goes on with the user's file, and
// the report says so. The same holds if the image config is not what the user's file gives, and if a step fails that a pass has written, in a way that the user's
// line could not have failed in (see failure.go).
package frontend

import (
	"context"

	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/gateway/client"

	"github.com/optbuild/optbuild/frontend/opt"
)

// Name is the frontend's name in solve requests: BuildKit's, so that provenance and external clients find what they expect.
const Name = "dockerfile.v0"

// Build builds a Dockerfile. It satisfies client.BuildFunc.
func Build(ctx context.Context, c client.Client) (*client.Result, error) {
	opts := c.BuildOpts().Opts
	o, err := options(opts)
	if err != nil {
		return nil, err
	}
	if _, sub := opts["requestid"]; sub || o.Level == opt.Off {
		return plain(ctx, c)
	}
	r := newRewriter(c, o)
	res, err := dockerfile.Build(ctx, withSyntax{r})
	if err == nil {
		err = r.sameConfig(res)
	}
	if err == nil && r.rewrote() {
		err = evaluate(ctx, res)
	}
	if err != nil && r.rewrote() && ctx.Err() == nil && (!r.solved() || isBroken(err) || r.ours(err)) {
		r.report.Broken = err.Error()
		r.say("the optimised Dockerfile did not build; building it as written: " + err.Error())
		if res, err = plain(ctx, c); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	return r.finish(res)
}

// plain is BuildKit's own frontend.
func plain(ctx context.Context, c client.Client) (*client.Result, error) {
	return dockerfile.Build(ctx, withSyntax{c})
}
