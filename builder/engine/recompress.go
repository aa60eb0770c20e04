package engine

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/moby/buildkit/cache"
	cacheconfig "github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/util/compression"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// BuildKit compresses a layer once, with what the first export asked for, and later exports take that unless they force their own upon all layers, those of the base image too.
// So what comes out would depend on what was built before. Here, an export that names a compression gets it for the layers that were built, and the base image's as they are.
//
// Nothing is forced where it has them already, as in each export of what did not change: BuildKit would note for each layer again that it is its own variant, with five transactions.

// asAsked returns the source with results whose built layers have this compression. Their blobs are there.
func asAsked(ctx context.Context, src *exporter.Source, c compression.Config, blobs content.Store, s session.Group) (*exporter.Source, error) {
	ps, err := exptypes.ParsePlatforms(src.Metadata)
	if err != nil {
		return src, nil // what is wrong with it is for the exporter to say
	}
	out := src.Clone()
	for _, p := range ps.Platforms {
		ref, ok := src.FindRef(p.ID)
		if !ok || ref == nil {
			continue
		}
		var base dockerspec.DockerOCIImage
		if b := exptypes.ParseKey(src.Metadata, exptypes.ExporterImageBaseConfigKey, &p); len(b) > 0 {
			if err := json.Unmarshal(b, &base); err != nil {
				return nil, fmt.Errorf("read the base image's configuration: %w", err)
			}
		}
		as := asked{ref, c}
		if !c.Force {
			remotes, err := ref.GetRemotes(ctx, false, cacheconfig.RefConfig{Compression: c}, false, s)
			if err != nil {
				return nil, err
			}
			t := except{c.Type, map[digest.Digest]bool{}}
			for i, d := range remotes[0].Descriptors {
				if i < len(base.RootFS.DiffIDs) {
					t.digests[d.Digest] = true
				}
			}
			if forced, err := t.any(ctx, blobs, remotes[0].Descriptors); err == nil && !forced {
				continue
			}
			as.compression.Type, as.compression.Force = t, true
		}
		if out.Ref == ref {
			out.Ref = as
		}
		for k, r := range out.Refs {
			if r == ref {
				out.Refs[k] = as
			}
		}
	}
	return out, nil
}

// asked is a result whose blobs have a compression of their own, whatever its exporter was told.
type asked struct {
	cache.ImmutableRef
	compression compression.Config
}

func (r asked) GetRemotes(ctx context.Context, create bool, cfg cacheconfig.RefConfig, all bool, s session.Group) ([]*solver.Remote, error) {
	cfg.Compression = r.compression
	return r.ImmutableRef.GetRemotes(ctx, create, cfg, all, s)
}

// except is a compression that suits the given blobs as they are.
type except struct {
	compression.Type
	digests map[digest.Digest]bool
}

func (t except) NeedsConversion(ctx context.Context, blobs content.Store, d ocispecs.Descriptor) (bool, error) {
	if t.digests[d.Digest] {
		return false, nil
	}
	return t.Type.NeedsConversion(ctx, blobs, d)
}

// any is true if one of the layers has to become another blob.
func (t except) any(ctx context.Context, blobs content.Store, layers []ocispecs.Descriptor) (bool, error) {
	for _, d := range layers {
		if needs, err := t.NeedsConversion(ctx, blobs, d); err != nil || needs {
			return needs, err
		}
	}
	return false, nil
}
