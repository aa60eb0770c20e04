package startup

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image returns the files and the configuration of an image with a name in full, of the local store, or else of its registry.
func Image(ctx context.Context, c gwclient.Client, name string, p ocispecs.Platform) (ref gwclient.Reference, config []byte, err error) {
	// Not ResolveImageConfig: BuildKit's client forgets where to look for the image first.
	meta, err := c.ResolveSourceMetadata(ctx, &pb.SourceOp{Identifier: "docker-image://" + name}, sourceresolver.Opt{
		ImageOpt: &sourceresolver.ResolveImageOpt{Platform: &p, ResolveMode: llb.ResolveModePreferLocal.String()},
	})
	if err != nil {
		return nil, nil, err
	}
	if meta.Image == nil {
		return nil, nil, errors.New("find image: it is none")
	}
	if !strings.Contains(name, "@") {
		name += "@" + meta.Image.Digest.String() // the files are those that the configuration is of
	}
	platform := llb.Platform(p)
	def, err := llb.Image(name, llb.ResolveModePreferLocal, platform).Marshal(ctx, platform)
	if err != nil {
		return nil, nil, fmt.Errorf("describe image: %w", err)
	}
	res, err := c.Solve(ctx, gwclient.SolveRequest{Definition: def.ToPB(), Evaluate: true})
	if err != nil {
		return nil, nil, err
	}
	ref, err = res.SingleRef()
	if err == nil && ref == nil {
		err = errors.New("the image has no files")
	}
	return ref, meta.Image.Config, err
}
