package engine

import (
	"context"

	"github.com/moby/buildkit/cache/metadata"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/optbuild/optbuild/cache"
	"github.com/optbuild/optbuild/snapshot"
)

// Keys of BuildKit's records (its package cache does not export them; the script damaged.txtar notices when they change).
const (
	keyBlob     = "cache.blob"         // digest of the layer's blob
	keySnapshot = "cache.snapshot"     // name of the snapshot; absent: the record's id
	keyMutable  = "cache.equalMutable" // id of the record that has the snapshot, before it is committed
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

// innerKeys maps the names of snapshots, as records know them, to the snapshotter's own. (The buckets are described in
// containerd's core/metadata/buckets.go.)
func (p *parts) innerKeys() (map[string]string, error) {
	keys := map[string]string{}
	err := p.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte("v1"))
		for _, name := range []string{Namespace, "snapshots", p.snapshotter} {
			if b == nil {
				return nil
			}
			b = b.Bucket([]byte(name))
		}
		if b == nil {
			return nil
		}
		return b.ForEachBucket(func(k []byte) error {
			keys[string(k)] = string(b.Bucket(k).Get([]byte("name")))
			return nil
		})
	})
	return keys, err
}

// shares is true if the snapshotter lets snapshots share files.
func (p *parts) shares() bool { return p.snapshotter == "overlayfs" }

// correct puts right what the records of aliases take: BuildKit measures a record once, but which alias of a shared layer is
// charged changes with time.
func (p *parts) correct(ctx context.Context, md *metadata.Store, records []cache.Record) error {
	layers, ok := p.snapshots.(*snapshot.Layers)
	if !ok {
		return nil
	}
	aliases, err := layers.Aliases(ctx)
	if err != nil || len(aliases) == 0 {
		return err
	}
	keys, err := p.innerKeys()
	if err != nil {
		return err
	}
	for i, r := range records {
		item, ok := md.Get(r.ID)
		if !ok {
			continue
		}
		for _, name := range []string{text(item, keyMutable), text(item, keySnapshot), r.ID} {
			if key, ok := keys[name]; ok {
				if usage, ok := aliases[key]; ok {
					records[i].Bytes = usage.Size + p.blobBytes(ctx, digest.Digest(text(item, keyBlob)))
				}
				break
			}
		}
	}
	return nil
}

// blobBytes is the size of a blob, 0 when it is not there.
func (p *parts) blobBytes(ctx context.Context, d digest.Digest) int64 {
	if d == "" {
		return 0
	}
	info, err := p.mdb.ContentStore().Info(within(ctx), d)
	if err != nil {
		return 0
	}
	return info.Size
}
