package engine

import (
	"context"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/moby/buildkit/cache"
	cacheconfig "github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/util/compression"
	"github.com/moby/buildkit/util/progress"
	"github.com/moby/buildkit/worker"
	"golang.org/x/sync/errgroup"

	"github.com/optbuild/optbuild/builder/compress"
	"github.com/optbuild/optbuild/builder/profile"
)

// compressing is a worker whose blobs are made by package compress. BuildKit's exporters choose their compressions by name from a closed list, but take a blob that is there:
// so it is made before they are asked. Caches ask the worker.
type compressing struct {
	worker.Worker
	eager *eager
	// with returns the worker with another cache manager.
	with func(cache.Manager) worker.Worker
}

// ResolveOp has an eye on the steps whose layers will leave in an image. It returns stock ops: provenance looks at their type.
func (w compressing) ResolveOp(v solver.Vertex, s frontend.FrontendLLBBridge, sm *session.Manager, proxy worker.ProxyOpt) (solver.Op, error) {
	if p, below := w.eager.at(v.Digest()); below != nothing {
		return w.with(beginning{w.CacheManager(), w.eager, p.image, below}).ResolveOp(v, s, sm, proxy)
	}
	return w.Worker.ResolveOp(v, s, sm, proxy)
}

func (w compressing) Exporter(name string, sm *session.Manager) (exporter.Exporter, error) {
	e, err := w.Worker.Exporter(name, sm)
	if err != nil {
		return nil, err
	}
	switch name {
	case client.ExporterImage, client.ExporterOCI, client.ExporterDocker:
		return compressingExporter{e, w.ContentStore(), w.eager}, nil
	}
	return e, nil
}

// GetRemotes is what exporters of caches ask for blobs.
func (w compressing) GetRemotes(ctx context.Context, ref cache.ImmutableRef, create bool, cfg cacheconfig.RefConfig, all bool, s session.Group) ([]*solver.Remote, error) {
	if ref == nil {
		return nil, nil
	}
	cfg.Compression = compress.Instead(cfg.Compression, compress.Options{})
	return ref.GetRemotes(ctx, create, cfg, all, s)
}

type compressingExporter struct {
	exporter.Exporter
	blobs content.Store
	eager *eager
}

func (e compressingExporter) Resolve(ctx context.Context, id int, attrs map[string]string) (exporter.ExporterInstance, error) {
	_, asked := attrs["compression"]
	first, err := profile.TakePrioritized(attrs) // BuildKit's exporter would take the attribute for metadata of the image
	if err != nil {
		return nil, err
	}
	chunked := compress.TakeChunked(attrs)
	i, err := e.Exporter.Resolve(ctx, id, attrs)
	if err != nil {
		return nil, err
	}
	return compressingInstance{i, e.blobs, e.eager, asked, chunked, first}, nil
}

type compressingInstance struct {
	exporter.ExporterInstance
	blobs   content.Store
	eager   *eager
	asked   bool     // a compression was, by its name
	chunked bool     // zstd is zstd:chunked
	first   []string // files that come first in layers of eStargz
}

// Config has our compressor: whoever makes layers for the image takes it from here.
func (i compressingInstance) Config() *exporter.Config {
	return exporter.NewConfigWithCompression(i.compression())
}

func (i compressingInstance) compression() compression.Config {
	return ours(i.ExporterInstance.Config().Compression(), i.chunked, i.first, compress.Options{Memo: i.eager.memo})
}

// ours is a compression of BuildKit with our writers.
func ours(c compression.Config, chunked bool, first []string, o compress.Options) compression.Config {
	c = compress.Instead(c, o)
	if chunked {
		c.Type = compress.Chunked(c.Type)
	}
	if t, err := compress.First(c.Type, first); err == nil {
		c.Type = t
	}
	return c
}

func (i compressingInstance) Export(ctx context.Context, src *exporter.Source, info exporter.ExportBuildInfo) (map[string]string, exporter.FinalizeFunc, exporter.DescriptorReference, error) {
	s := session.NewGroup(info.SessionID)
	c := i.compression()
	refs := []cache.ImmutableRef{src.Ref}
	for _, r := range src.Refs {
		refs = append(refs, r)
	}
	if err := makeBlobs(ctx, c, s, refs...); err != nil {
		return nil, nil, nil, err
	}
	if i.asked || len(i.first) > 0 { // also by force: BuildKit's own type would take eStargz in any order
		var err error
		if src, err = asAsked(ctx, src, c, i.blobs, s); err != nil {
			return nil, nil, nil, err
		}
	}
	return i.ExporterInstance.Export(ctx, src, info)
}

// makeBlobs compresses the layers that have no blob yet, or none of this compression if that is forced.
func makeBlobs(ctx context.Context, c compression.Config, s session.Group, refs ...cache.ImmutableRef) (err error) {
	cfg := cacheconfig.RefConfig{Compression: c}
	eg, egctx := errgroup.WithContext(ctx)
	var done func(error) error // of the line about it
	for _, ref := range refs {
		if ref == nil {
			continue
		}
		if !c.Force {
			if _, err := ref.GetRemotes(ctx, false, cfg, false, s); err == nil {
				continue // all are there
			}
		}
		if done == nil {
			done = progress.OneOff(ctx, "compressing layers")
		}
		eg.Go(func() error {
			_, err := ref.GetRemotes(egctx, true, cfg, false, s)
			return err
		})
	}
	err = eg.Wait()
	if done != nil {
		err = done(err)
	}
	return err
}
