package lazy

import (
	"context"
	"errors"
	"fmt"

	"github.com/moby/buildkit/cache"
	cacheconfig "github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/compression"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/engine/lazypull"
)

// Alone returns a directory with the files of a reference's topmost layer, like Dir, but fetches that layer if it must. Those below it are not fetched: of a COPY's layer a step may have to
// be asked what it has seen, and the base image is a hundred times as large.
func (f *Files) Alone(ctx context.Context, m cache.Manager, r cache.ImmutableRef, g session.Group) (string, error) {
	if dir := f.Dir(r.ID()); dir != "" {
		return dir, nil
	}
	remotes, err := r.GetRemotes(ctx, false, cacheconfig.RefConfig{Compression: compression.New(compression.Default)}, false, g)
	if err != nil {
		return "", err
	}
	if len(remotes) == 0 || len(remotes[0].Descriptors) == 0 {
		return "", errors.New("the layer is nowhere")
	}
	d := remotes[0].Descriptors[len(remotes[0].Descriptors)-1]
	ctx = context.WithValue(ctx, asideKey{}, true)
	alone, err := m.GetByBlob(ctx, d, nil, cache.WithDescription("a layer without those below it"), Handlers(r, []ocispecs.Descriptor{d}))
	if err != nil {
		return "", err
	}
	dirs, err := directories(ctx, alone, g)
	if err == nil && len(dirs) != 1 {
		err = errors.New("it has no directory of its own")
	}
	if err != nil {
		release(ctx, alone)
		return "", fmt.Errorf("fetch a layer without those below it: %w", err)
	}
	f.keep(r.ID(), made{dirs[0], alone})
	return dirs[0], nil
}

// Here returns the directory of a reference's topmost layer; "" if that layer, or one below it, has not been fetched.
func (f *Files) Here(ctx context.Context, r cache.ImmutableRef, g session.Group) (string, error) {
	if dir := f.Dir(r.ID()); dir != "" {
		return dir, nil
	}
	if lazypull.Partial(r) {
		return "", nil
	}
	dirs, err := directories(ctx, r, g)
	if err != nil || len(dirs) == 0 {
		return "", err
	}
	return dirs[0], nil
}
