// Package manifests makes the importers of caches that manifests describe: in registries (type=registry, of which one kind is the inline cache of an image), and in directories (type=local).
//
// What is in such a cache is understood by BuildKit's importer, as in BuildKit. It believes what descriptors say: it makes room for a blob of any size that is stated, follows indexes
// for ever, and ends the process for an image whose history is too short. So it reads through a provider that has looked at each blob before ([reading]). What is refused is an error of the
// import, and the build goes on without the cache. Layers are read later, and are not looked at here.
package manifests

import (
	"context"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/moby/buildkit/cache/remotecache"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/worker"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/engine/chains"
)

// importer imports one cache.
type importer struct {
	check chains.Check
	// provider is of the cache's blobs. Those that it is asked for before the reading has ended are opened by the reading.
	provider func(*reading) content.Provider
}

func (i importer) Resolve(ctx context.Context, desc ocispecs.Descriptor, id string, w worker.Worker) (solver.CacheManager, error) {
	r := &reading{check: i.check}
	defer r.ended.Store(true)
	return remotecache.NewImporter(i.provider(r)).Resolve(ctx, desc, id, w)
}
