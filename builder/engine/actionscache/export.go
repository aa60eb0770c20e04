package actionscache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/moby/buildkit/cache/remotecache"
	v1 "github.com/moby/buildkit/cache/remotecache/v1"
	cacheimporttypes "github.com/moby/buildkit/cache/remotecache/v1/types"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/util/compression"
	"github.com/moby/buildkit/util/progress"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
	actions "github.com/tonistiigi/go-actions-cache"
	"golang.org/x/sync/errgroup"

	"github.com/optbuild/optbuild/builder/engine/chains"
)

// uploads is how many layers are on their way at a time. The client sends each in several parts at once.
const uploads = 4

// Exporter returns what makes BuildKit's exporters of type gha.
func Exporter() remotecache.ResolveCacheExporterFunc {
	return func(_ context.Context, _ session.Group, attrs map[string]string) (remotecache.Exporter, error) {
		s, err := open(attrs)
		if err != nil {
			return nil, fmt.Errorf("cache type=gha: %w", err)
		}
		chains := v1.NewCacheChains()
		return &exporter{CacheExporterTarget: chains, chains: chains, service: s, wait: 2 * time.Second}, nil
	}
}

// exporter collects a build's cache, and writes it in the end.
type exporter struct {
	solver.CacheExporterTarget
	chains  *v1.CacheChains
	service *service
	wait    time.Duration // between two tries of writing an index whose number somebody else has taken
}

func (*exporter) Name() string { return "exporting to GitHub Actions Cache" }

func (*exporter) Config() remotecache.Config {
	return remotecache.Config{Compression: compression.New(compression.Default)}
}

// Finalize writes layers that the service does not have, and then the index.
func (e *exporter) Finalize(ctx context.Context) (map[string]string, error) {
	branch, err := e.service.writable()
	if err != nil {
		return nil, err
	}
	index, layers, err := e.chains.Marshal(ctx)
	if err != nil {
		return nil, err
	}
	has := e.existing(ctx, len(index.Layers))
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(uploads)
	for i := range index.Layers {
		l := &index.Layers[i]
		group.Go(func() (err error) {
			pair, ok := layers[l.Blob]
			if !ok {
				return fmt.Errorf("layer %s is missing", l.Blob)
			}
			if l.Annotations, err = annotations(pair); err != nil {
				return err
			}
			return e.layer(gctx, pair, has)
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(index)
	if err != nil {
		return nil, err
	}
	return nil, e.index(ctx, e.service.indexKey(branch), b)
}

// existing returns a function that says whether an entry exists: by one listing of all if that may be asked for, else by a request each.
func (e *exporter) existing(ctx context.Context, layers int) func(context.Context, string) (bool, error) {
	if e.service.list != nil && layers > 0 {
		keys, err := e.service.list(ctx, blobPrefix)
		if err == nil {
			return func(_ context.Context, key string) (bool, error) {
				_, ok := keys[key]
				return ok, nil
			}
		}
		logrus.WithError(err).Warn("the keys of the GitHub Actions cache can't be listed; each is looked up")
	}
	return func(ctx context.Context, key string) (bool, error) {
		found, err := e.service.entry(ctx, key)
		return found != nil, err
	}
}

// layer writes a layer if it is not there.
func (e *exporter) layer(ctx context.Context, pair v1.DescriptorProviderPair, has func(context.Context, string) (bool, error)) error {
	key := blobKey(pair.Descriptor.Digest)
	if ok, err := has(ctx, key); ok || err != nil {
		return err
	}
	done := progress.OneOff(ctx, "writing layer "+pair.Descriptor.Digest.String())
	r, err := pair.Provider.ReaderAt(ctx, pair.Descriptor)
	if err != nil {
		return done(fmt.Errorf("read layer %s: %w", pair.Descriptor.Digest, err))
	}
	defer r.Close()
	// Who has the key already writes the same content.
	if err := e.service.cache.Save(ctx, key, r); err != nil && !errors.Is(err, os.ErrExist) {
		return done(fmt.Errorf("write layer %s: %w", pair.Descriptor.Digest, err))
	}
	return done(nil)
}

// annotations are what an index says of a layer besides its digest.
func annotations(pair v1.DescriptorProviderPair) (*cacheimporttypes.LayerAnnotations, error) {
	d := pair.Descriptor
	diffID, err := digest.Parse(d.Annotations[labels.LabelUncompressed])
	if err != nil {
		return nil, fmt.Errorf("layer %s has no digest of what is in it: %w", d.Digest, err)
	}
	a := &cacheimporttypes.LayerAnnotations{DiffID: diffID, Size: d.Size, MediaType: d.MediaType}
	if v := d.Annotations[chains.CreatedAt]; v != "" {
		if err := a.CreatedAt.UnmarshalText([]byte(v)); err != nil {
			return nil, fmt.Errorf("layer %s: %w", d.Digest, err)
		}
		a.CreatedAt = a.CreatedAt.UTC()
	}
	return a, nil
}

// tries is how often a number is tried that somebody else has taken before it is left out: who has taken it has died then.
const tries = 8

// index writes an index with the next number.
//
// The client has a function for that, which takes a failed upload for success: the index would be missing, and nobody would be told.
func (e *exporter) index(ctx context.Context, key string, b []byte) error {
	for last, tried := -1, 0; ; tried++ {
		_, n, err := e.service.newest(ctx, key)
		if err != nil {
			return err
		}
		if n != last {
			last, tried = n, 0
		}
		number := n + 1 + max(0, tried-tries)
		err = e.service.cache.Save(ctx, fmt.Sprint(key, number), actions.NewBlob(b))
		if !errors.Is(err, os.ErrExist) {
			if err != nil {
				return fmt.Errorf("write the index %s%d: %w", key, number, err)
			}
			return nil
		}
		if tried >= tries {
			continue
		}
		select {
		case <-time.After(e.wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
