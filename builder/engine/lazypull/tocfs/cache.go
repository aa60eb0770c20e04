package tocfs

import (
	"bytes"
	"os"
	"sync"

	"github.com/containerd/stargz-snapshotter/cache"
	"github.com/containerd/stargz-snapshotter/util/cacheutil"
)

// newCache returns a cache in a directory of its own below dir. So many of the last entries are kept in memory, too.
func newCache(dir string, memoryEntries int) (cache.BlobCache, error) {
	own, err := os.MkdirTemp(dir, "")
	if err != nil {
		return nil, err
	}
	pool := &sync.Pool{New: func() any { return new(bytes.Buffer) }}
	data, files := cacheutil.NewLRUCache(memoryEntries), cacheutil.NewLRUCache(openFiles)
	data.OnEvicted = func(_ string, v any) {
		v.(*bytes.Buffer).Reset()
		pool.Put(v)
	}
	files.OnEvicted = func(_ string, v any) { v.(*os.File).Close() }
	return cache.NewDirectoryCache(own, cache.DirectoryCacheConfig{SyncAdd: true, DataCache: data, FdCache: files, BufPool: pool})
}

const (
	openFiles    = 64
	memoryParts  = 64 // of 64 KiB
	memoryChunks = 8  // of 4 MiB, most often
)
