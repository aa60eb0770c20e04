package engine

import (
	"github.com/moby/buildkit/cache/metadata"
	"github.com/opencontainers/go-digest"
)

// Keys of BuildKit's records (its package cache does not export them; the script damaged.txtar notices when they change).
const (
	keyBlob     = "cache.blob"     // digest of the layer's blob
	keySnapshot = "cache.snapshot" // name of the snapshot; absent: the record's id
)

// blobOf returns the digest of a record's blob, "" when it has none.
func blobOf(md *metadata.Store, id string) digest.Digest {
	item, ok := md.Get(id)
	if !ok {
		return ""
	}
	return digest.Digest(text(item, keyBlob))
}

// text returns a record's value, "" when there is none.
func text(item *metadata.StorageItem, key string) (s string) {
	if v := item.Get(key); v == nil || v.Unmarshal(&s) != nil {
		return ""
	}
	return s
}
