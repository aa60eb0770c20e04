package lazy

import (
	"context"
	"errors"
	"fmt"

	"github.com/moby/buildkit/cache"
	cacheconfig "github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/compression"
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
	opts := []cache.RefOption{cache.WithDescription("a layer without those below it")}
	if h := r.DescHandler(d.Digest); h != nil {
		opts = append(opts, cache.DescHandlers{d.Digest: h})
	}
	ctx = context.WithValue(ctx, asideKey{}, true)
	alone, err := m.GetByBlob(ctx, d, nil, opts...)
	if err != nil {
		return "", err
	}
	dir, err := onlyDirectory(ctx, alone, g)
	if err != nil {
		release(ctx, alone)
		return "", fmt.Errorf("fetch a layer without those below it: %w", err)
	}
	f.keep(r.ID(), made{dir, alone})
	return dir, nil
}

// onlyDirectory is where the files of a reference are that lies on nothing.
func onlyDirectory(ctx context.Context, r cache.ImmutableRef, g session.Group) (string, error) {
	if err := r.Extract(ctx, g); err != nil {
		return "", err
	}
	mountable, err := r.Mount(ctx, true, g)
	if err != nil {
		return "", err
	}
	mounts, done, err := mountable.Mount()
	if err != nil {
		return "", err
	}
	if done != nil {
		defer done()
	}
	if len(mounts) != 1 || mounts[0].Type != "bind" && mounts[0].Type != "rbind" {
		return "", errors.New("the layer has no directory of its own")
	}
	return mounts[0].Source, nil
}
