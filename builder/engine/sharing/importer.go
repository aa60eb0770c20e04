package sharing

import (
	"context"
	"fmt"
	"slices"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/cache"
	v1 "github.com/moby/buildkit/cache/remotecache/v1"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/util/progress"
	"github.com/moby/buildkit/worker"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/optbuild/optbuild/builder/engine/lazy"
	"github.com/optbuild/optbuild/cache/remote"
)

// importer reads a cache for one build.
type importer struct {
	store   *store
	builds  []*build // that asked for it
	manager cache.Manager
}

// Resolve returns what the builds of all scopes have stored, as one cache. One that can't be read is empty: that is told, and the build goes on.
func (i *importer) Resolve(ctx context.Context, _ ocispecs.Descriptor, id string, w worker.Worker) (solver.CacheManager, error) {
	chains := v1.NewCacheChains()
	done := progress.OneOff(ctx, "reading shared cache "+reference.FamiliarString(i.store.named))
	index, err := i.store.Load(ctx)
	if err != nil && ctx.Err() == nil {
		i.store.warn("it can't be read, building without it: " + err.Error())
		err = nil
	}
	if index != nil {
		list := fetchSolved(ctx, i.store, index)
		for _, b := range i.builds {
			b.reads(reading{i.store, index}, list)
		}
		for _, s := range list {
			if err := s.into(chains, i.store.Provider(), i.store.ref()); err != nil {
				i.store.warn("an entry is not used: " + err.Error())
			}
		}
	}
	_ = done(err)
	i.store.tell(ctx)
	keys, results, err := v1.NewCacheKeyStorage(chains, lazy.Worker{Worker: w, Manager: i.manager})
	if err != nil {
		return nil, fmt.Errorf("read shared cache: %w", err)
	}
	return solver.NewCacheManager(ctx, id, keys, results), nil
}

// fetchSolved fetches what the newest builds have stored, the oldest of them first: of two results for the same inputs BuildKit takes the newer one by its time.
func fetchSolved(ctx context.Context, store *store, index *remote.Index) []*solved {
	entries := index.All(kindSolver)
	entries = entries[:min(len(entries), maxSolved)]
	slices.Reverse(entries)
	found := make([]*solved, len(entries))
	var eg errgroup.Group
	eg.SetLimit(4)
	for n, e := range entries {
		eg.Go(func() error {
			s, err := fetchOne(ctx, store, e)
			if err != nil && ctx.Err() == nil {
				store.warn("an entry is not used: " + err.Error())
			}
			found[n] = s
			return nil
		})
	}
	_ = eg.Wait()
	return slices.DeleteFunc(found, func(s *solved) bool { return s == nil })
}

func fetchOne(ctx context.Context, store *store, e remote.Entry) (*solved, error) {
	b, err := store.Fetch(ctx, e.Blob, maxSolver)
	if err != nil {
		return nil, err
	}
	s, err := decodeSolved(b)
	if err != nil {
		return nil, err
	}
	s.entry = e
	return s, nil
}
