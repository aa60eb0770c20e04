package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/cache"
)

// Records lists what builds could use again.
func (e *Engine) Records(ctx context.Context) ([]cache.Record, error) {
	held, _, err := e.imageBlobs(ctx)
	if err != nil {
		return nil, err
	}
	return e.records(ctx, held)
}

func (e *Engine) records(ctx context.Context, held map[digest.Digest]int64) ([]cache.Record, error) {
	infos, err := e.worker.DiskUsage(ctx, client.DiskUsageInfo{})
	if err != nil {
		return nil, err
	}
	records := make([]cache.Record, len(infos))
	for i, u := range infos {
		records[i] = record(*u)
	}
	if err := e.parts.correct(ctx, e.worker.MetadataStore, records); err != nil {
		return nil, err
	}
	if len(held) > 0 {
		for i, r := range records {
			records[i].HeldBytes = min(held[blobOf(e.worker.MetadataStore, r.ID)], r.Bytes)
		}
	}
	return records, nil
}

func record(u client.UsageInfo) cache.Record {
	r := cache.Record{
		ID: u.ID, Type: string(u.RecordType), Bytes: u.Size, Created: u.CreatedAt, Uses: u.UsageCount,
		Description: u.Description, Parents: u.Parents, InUse: u.InUse, Mutable: u.Mutable, Shared: u.Shared,
	}
	if u.LastUsedAt != nil {
		r.LastUsed = *u.LastUsedAt
	}
	return r
}

// DiskUsage measures what the engine's directory takes on disk, without looking at every file: the snapshotter knows the
// size of each snapshot that can't change any more, so only the others are walked. Images and Reclaimable are left out.
func (e *Engine) DiskUsage(ctx context.Context) (u cache.Usage, err error) {
	dirs := e.parts.snapshotDirs()
	err = e.parts.snapshots.Walk(ctx, func(ctx context.Context, info snapshots.Info) error {
		s, err := e.parts.snapshots.Usage(ctx, info.Name)
		if errdefs.IsNotFound(err) || errors.Is(err, fs.ErrNotExist) {
			return nil // went meanwhile
		}
		u.Snapshots += s.Size + dirs.overhead
		return err
	})
	if err != nil {
		return u, err
	}
	err = cache.Du(e.root, func(path string) bool { return path == dirs.path || dirs.isLayer(path) }, func(path string, n int64) {
		switch {
		case dirs.isLayer(path): // is a part of the snapshot that it is charged to
		case dirs.has(path):
			u.Snapshots += n
		default:
			e.classify(&u, path, n)
		}
	})
	return u.Sum(), err
}

// ExactDiskUsage is DiskUsage by looking at every file, with all fields.
func (e *Engine) ExactDiskUsage(ctx context.Context) (u cache.Usage, err error) {
	held, count, err := e.imageBlobs(ctx)
	if err != nil {
		return u, err
	}
	if u.Records, err = e.records(ctx, held); err != nil {
		return u, err
	}
	u.ImageCount = count
	dirs := e.parts.snapshotDirs()
	err = cache.Du(e.root, nil, func(path string, n int64) {
		dgst := digest.NewDigestFromEncoded(digest.Canonical, filepath.Base(path))
		switch {
		case dirs.has(path):
			u.Snapshots += n
		case held[dgst] > 0:
			u.Images += n
		default:
			e.classify(&u, path, n)
		}
	})
	var busy int64
	for _, r := range u.Records {
		if r.Type == string(client.UsageRecordTypeCacheMount) {
			u.CacheMounts += r.Bytes
		}
		if r.InUse {
			busy += r.Bytes
		}
	}
	u.CacheMounts = min(u.CacheMounts, u.Snapshots)
	u.Snapshots -= u.CacheMounts
	u.Reclaimable = max(0, u.Snapshots+u.CacheMounts+u.Blobs-busy)
	return u.Sum(), err
}

func (e *Engine) classify(u *cache.Usage, path string, n int64) {
	switch {
	case strings.HasPrefix(path, e.parts.blobs()+"/"):
		u.Blobs += n
	case strings.HasSuffix(path, ".db"):
		u.Databases += n
	default:
		u.Other += n
	}
}

// imageBlobs returns the blobs that images of the local store refer to, with their sizes, and how many images there are.
func (e *Engine) imageBlobs(ctx context.Context) (map[digest.Digest]int64, int, error) {
	held := map[digest.Digest]int64{}
	if e.parts.images == nil {
		return held, 0, nil
	}
	list, err := e.parts.images.List(ctx)
	if err != nil {
		return nil, 0, err
	}
	for _, img := range list {
		err := walkImage(ctx, e.parts.mdb.ContentStore(), img.Target, func(d digest.Digest, n int64) { held[d] = n })
		if err != nil {
			return nil, 0, err
		}
	}
	return held, len(list), nil
}

// walkImage calls each with all blobs of an image that its manifests name, also with those that were not pulled.
func walkImage(ctx context.Context, store content.Provider, target v1.Descriptor, each func(d digest.Digest, n int64)) error {
	return images.Walk(within(ctx), images.HandlerFunc(func(ctx context.Context, d v1.Descriptor) ([]v1.Descriptor, error) {
		each(d.Digest, d.Size)
		children, err := images.Children(ctx, store, d)
		if errdefs.IsNotFound(err) { // of another platform than those that were pulled
			return nil, nil
		}
		return children, err
	}), target)
}

// Listing is a digest of which snapshots and blobs there are.
func (e *Engine) Listing() uint64 {
	d := e.parts.snapshotDirs()
	return stampNames(filepath.Join(e.parts.blobs(), "sha256"), d.path, d.shared)
}

// Growth is what was added to the cache.
type Growth struct {
	Bytes  int64 // of what can't change any more
	Things int   // snapshots and blobs; no more records than these
}

// fileClock is more than the kernel's clock for files is behind (it has ticks of up to 10 ms).
const fileClock = 20 * time.Millisecond

// Growth measures what was added since a moment, without looking at files: the snapshotter knows the size of snapshots that can't change any more. What was
// removed is not taken off.
func (e *Engine) Growth(ctx context.Context, since time.Time) (g Growth, err error) {
	dirs := e.parts.snapshotDirs()
	err = e.parts.snapshots.Walk(ctx, func(ctx context.Context, info snapshots.Info) error {
		if !info.Created.After(since) {
			return nil
		}
		g.Things++
		if info.Kind != snapshots.KindCommitted {
			return nil
		}
		s, err := e.parts.snapshots.Usage(ctx, info.Name)
		if errdefs.IsNotFound(err) || errors.Is(err, fs.ErrNotExist) {
			return nil // went meanwhile
		}
		g.Bytes += s.Size + dirs.overhead
		return err
	})
	if err != nil && !errdefs.IsNotFound(err) { // there never was a snapshot
		return g, err
	}
	entries, err := os.ReadDir(filepath.Join(e.parts.blobs(), "sha256"))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	for _, f := range entries {
		if info, err := f.Info(); err == nil && info.ModTime().After(since.Add(-fileClock)) {
			g.Things++
			g.Bytes += info.Size()
		}
	}
	return g, err
}

// CollectGarbage removes snapshots, blobs and directories that nothing refers to, and returns when they are gone.
func (e *Engine) CollectGarbage(ctx context.Context) error {
	if _, err := e.parts.mdb.GarbageCollect(ctx); err != nil {
		return err
	}
	// Directories that a killed engine did not come to remove belong to no snapshot: the garbage collector does not see them.
	if c, ok := e.parts.snapshots.(snapshots.Cleaner); ok {
		return c.Cleanup(ctx)
	}
	return nil
}

// Unused is the rule for removing what was last used at or before a moment.
func Unused(since time.Time) client.PruneInfo {
	return client.PruneInfo{All: true, KeepDuration: max(time.Since(since), 1)}
}

// snapshotDirs says where the snapshotter keeps the directories of snapshots, and what it takes for one besides the files in
// it: the directory itself and overlayfs's work directory. Those of shared layers are beside them (see package snapshot), with
// notes about each that are not large.
type snapshotDirs struct {
	path, shared string
	overhead     int64
}

// has is true for all that is in the directories, and for themselves.
func (d snapshotDirs) has(path string) bool {
	return path == d.path || path == d.shared || strings.HasPrefix(path, d.path+"/") || strings.HasPrefix(path, d.shared+"/")
}

// isLayer is true for the directory with the files of a shared layer.
func (d snapshotDirs) isLayer(path string) bool {
	rest, ok := strings.CutPrefix(path, d.shared+"/")
	return ok && strings.Count(rest, "/") == 1 && strings.HasSuffix(rest, "/fs")
}

func (p *parts) snapshotDirs() snapshotDirs {
	d := snapshotDirs{path: filepath.Join(p.root, "snapshots", "snapshots"), shared: filepath.Join(p.root, "snapshots", "shared")}
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(p.root, "snapshots"), &st); err == nil && p.snapshotter != "native" {
		d.overhead = 2 * int64(st.Blocks) * 512
	}
	return d
}

func (p *parts) blobs() string { return filepath.Join(p.root, "content", "blobs") }
