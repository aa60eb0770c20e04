package export

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/moby/buildkit/cache"
	cacheconfig "github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/util/compression"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// Unfinished is an image of which only the lowest steps were made.
type Unfinished struct {
	Config, BaseConfig []byte            // of the whole image, as a Source has them
	Off                string            // see OffKey
	Attrs              map[string]string // of the exporter
	Compression        compression.Config
}

// Prepare makes the blobs that the image will have once it is finished of the layers that ref has, so that the export finds them, and returns them. The layer after those must not
// belong to a unit with them. The blobs are held until release is called, and for as long as ref is.
func (m *Merger) Prepare(ctx context.Context, ref cache.ImmutableRef, u Unfinished, s session.Group) (layers *solver.Remote, release func(), err error) {
	o, _, err := takeOptions(u.Attrs)
	if err != nil {
		return nil, nil, err
	}
	release = func() {}
	if o = o.without(u.Off); !o.nothing() {
		config, err := u.cut(ref)
		if err != nil {
			return nil, nil, err
		}
		j := &job{Merger: m, comp: u.Compression, session: s}
		merged, _, _, err := j.image(ctx, ref, config, u.BaseConfig, o)
		if err != nil {
			return nil, nil, err
		}
		if merged != nil {
			release = references{merged}.release
			ref = merged
		}
	}
	list, err := ref.GetRemotes(ctx, true, cacheconfig.RefConfig{Compression: u.Compression}, false, s)
	if err != nil {
		release()
		return nil, nil, err
	}
	return list[0], release, nil
}

// cut returns the configuration with the history of the layers that ref has.
func (u Unfinished) cut(ref cache.ImmutableRef) ([]byte, error) {
	var c, base dockerspec.DockerOCIImage
	if err := json.Unmarshal(u.Config, &c); err != nil {
		return nil, fmt.Errorf("read image configuration: %w", err)
	}
	if len(u.BaseConfig) > 0 {
		if err := json.Unmarshal(u.BaseConfig, &base); err != nil {
			return nil, fmt.Errorf("read the base image's configuration: %w", err)
		}
	}
	chain := ref.LayerChain()
	defer chain.Release(context.Background())
	left := len(chain) - len(base.RootFS.DiffIDs)
	for i := len(base.History); i < len(c.History); i++ {
		if c.History[i].EmptyLayer {
			continue
		}
		if left--; left < 0 {
			c.History = c.History[:i]
		}
	}
	return withHistory(u.Config, c.History)
}
