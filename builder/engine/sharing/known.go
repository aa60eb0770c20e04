package sharing

import (
	"bytes"
	"context"
	"encoding/json"
	"reflect"
	"slices"

	v1 "github.com/moby/buildkit/cache/remotecache/v1"
	cacheimporttypes "github.com/moby/buildkit/cache/remotecache/v1/types"
)

// known is true if all that the build knows was in the caches that it has read.
func (e *exporter) known(ctx context.Context, config *cacheimporttypes.CacheConfig, blobs v1.DescriptorProvider) (bool, error) {
	if same, err := e.same(config); same || err != nil {
		return same, err
	}
	chains := v1.NewCacheChains()
	for _, b := range e.builds {
		b.mu.Lock()
		list := slices.Clone(b.solved)
		b.mu.Unlock()
		for _, s := range list {
			if err := s.into(chains, e.store.Provider(), e.store.ref()); err != nil {
				return false, nil // the importer has told
			}
		}
	}
	was, _, err := chains.Marshal(ctx)
	if err != nil {
		return false, err
	}
	if err := v1.ParseConfig(*config, blobs, chains); err != nil {
		return false, err
	}
	is, _, err := chains.Marshal(ctx)
	return reflect.DeepEqual(was, is), err
}

// same is true if an earlier build knew just this, which takes less time to find out than whether several did together.
func (e *exporter) same(config *cacheimporttypes.CacheConfig) (bool, error) {
	text, err := json.Marshal(config)
	if err != nil {
		return false, err
	}
	for _, b := range e.builds {
		b.mu.Lock()
		same := slices.ContainsFunc(b.solved, func(s *solved) bool { return bytes.Equal(s.config, text) })
		b.mu.Unlock()
		if same {
			return true, nil
		}
	}
	return false, nil
}
