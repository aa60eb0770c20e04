package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	ctdmetadata "github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/cache/metadata"
	"github.com/moby/buildkit/util/leaseutil"
	"github.com/opencontainers/go-digest"

	"github.com/optbuild/optbuild/snapshot"
)

// repair is what a start finds damaged. A damaged part is removed, with what refers to it, and nothing else: what needs it
// is then built or fetched again, and images of the local store stay for as long as their names and blobs can be read.
type repair struct {
	before seal
	sealed bool
	// notices are lines for the user.
	notices []string
	// leases is true when records were lost: their leases would keep snapshots and blobs for ever.
	leases bool
	// present are the snapshotter's names of the snapshots whose files are there; nil when there was no reason to look.
	present map[string]bool
	// collect is true when the garbage collector has to run before the first build.
	collect bool
}

// note adds a line for the user: what was damaged, and what comes of it.
func (r *repair) note(what, comes string) {
	r.notices = append(r.notices, what+": "+comes)
}

// checkDatabases removes damaged databases, and what is worth nothing without them. Nothing is open yet.
func (p *parts) checkDatabases(root string) error {
	r := &p.repair
	r.before, r.sealed = breakSeal(root)
	damage := map[string]string{}
	for _, path := range databases(root, p.root) {
		if d := checkDatabase(path, r.sealed, r.before.Databases[nameBelow(root, path)]); d != "" {
			damage[filepath.Base(path)] = d
		}
	}
	if !r.sealed {
		p.checkLost(root, damage)
	}
	what := func(name string) string { return fmt.Sprintf("the cache's %s %s", name, damage[name]) }
	remove := func(paths ...string) error {
		for _, path := range paths {
			if err := discard(path); err != nil {
				return fmt.Errorf("%w: remove %s: %w", ErrDamaged, path, err)
			}
		}
		return nil
	}
	cacheDB, records := filepath.Join(root, "cache.db"), filepath.Join(p.root, "metadata_v2.db")
	switch {
	case damage["containerdmeta.db"] != "":
		r.note(what("containerdmeta.db"), "starting with an empty cache; the local images are lost")
		return remove(p.root, cacheDB, filepath.Join(root, "history.db"))
	case damage["metadata.db"] != "":
		r.note(what("metadata.db"), "everything is built again; the local images are kept")
		r.leases = true
		if err := remove(filepath.Join(p.root, "snapshots"), records, cacheDB); err != nil {
			return err
		}
	case damage["metadata_v2.db"] != "":
		r.note(what("metadata_v2.db"), "everything is built again; the local images are kept")
		r.leases = true
		if err := remove(records, cacheDB); err != nil {
			return err
		}
	case damage["cache.db"] != "":
		r.note(what("cache.db"), "everything is built again; the local images are kept")
		if err := remove(cacheDB); err != nil {
			return err
		}
	}
	if damage["history.db"] != "" {
		return remove(filepath.Join(root, "history.db"))
	}
	return nil
}

// checkLost finds, where no seal tells, databases that are empty or not there although something was made after them.
func (p *parts) checkLost(root string, damage map[string]string) {
	has := func(path string) bool {
		fi, err := os.Stat(path)
		return err == nil && fi.Size() > 0
	}
	records, meta := filepath.Join(p.root, "metadata_v2.db"), filepath.Join(p.root, "containerdmeta.db")
	dirs := p.snapshotDirs()
	snapshots, _ := os.ReadDir(dirs.path)
	shared, _ := os.ReadDir(dirs.shared)
	if !has(filepath.Join(p.root, "snapshots", "metadata.db")) && len(snapshots)+len(shared) > 0 {
		damage["metadata.db"] = "is missing"
	}
	if !has(records) && has(filepath.Join(root, "cache.db")) {
		damage["metadata_v2.db"] = "is missing"
	}
	if !has(meta) && has(records) {
		damage["containerdmeta.db"] = "is missing"
	}
}

// discard moves a file or directory out of the way and removes it in the background; what is left when the engine ends
// goes with the next start's sweep of the temporary directory.
func discard(path string) error {
	to, err := os.MkdirTemp("", "damaged-")
	if err != nil {
		return err
	}
	err = os.Rename(path, filepath.Join(to, filepath.Base(path)))
	go os.RemoveAll(to)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// checkSnapshots finds the snapshots whose files are there, and removes directories that belong to none: an engine that was
// killed while it made a snapshot leaves one under the number that the next snapshot gets. The snapshotter has not opened its
// database yet.
func (p *parts) checkSnapshots(ctx context.Context) error {
	r := &p.repair
	if r.sealed && p.stampSnapshots() == r.before.Snapshots {
		return nil
	}
	r.present = map[string]bool{}
	path := filepath.Join(p.root, "snapshots", "metadata.db")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ms, err := storage.NewMetaStore(path)
	if err != nil {
		return fmt.Errorf("open snapshots: %w", err)
	}
	defer ms.Close()
	return ms.WithTransaction(ctx, false, func(ctx context.Context) error {
		ids, err := storage.IDMap(ctx)
		if errdefs.IsNotFound(err) { // no snapshot was ever recorded
			ids, err = nil, nil
		}
		if err != nil {
			return err
		}
		r.present, err = snapshot.Repair(filepath.Join(p.root, "snapshots"), p.shares(), ids, discard)
		return err
	})
}

// lostSnapshots returns the names, as records know them, of the snapshots that containerd's metadata lists but whose files are
// not there.
func (p *parts) lostSnapshots() (map[string]bool, error) {
	lost := map[string]bool{}
	if p.repair.present == nil {
		return lost, nil
	}
	keys, err := p.innerKeys()
	for name, key := range keys {
		if !p.repair.present[key] {
			lost[name] = true
		}
	}
	return lost, err
}

// checkRecords drops the records whose snapshot or blob is gone or damaged, and the blob; records that build on them are
// dropped by BuildKit when it finds their parents missing.
func (p *parts) checkRecords(ctx context.Context, md *metadata.Store) error {
	r := &p.repair
	lm := leaseutil.WithNamespace(ctdmetadata.NewLeaseManager(p.mdb), Namespace)
	if r.leases {
		all, err := lm.List(ctx)
		if err != nil {
			return fmt.Errorf("list leases: %w", err)
		}
		for _, l := range all {
			if err := lm.Delete(ctx, l); err != nil {
				return fmt.Errorf("delete lease: %w", err)
			}
		}
		r.collect = true
	}
	blobs, err := p.damagedBlobs(ctx)
	if err != nil {
		return err
	}
	lost, err := p.lostSnapshots()
	if err != nil {
		return fmt.Errorf("%w: list snapshots: %w", ErrDamaged, err)
	}
	if len(blobs) == 0 && len(lost) == 0 {
		return nil
	}
	r.collect = true
	items, err := md.All()
	if err != nil {
		return fmt.Errorf("%w: list records: %w", ErrDamaged, err)
	}
	for _, item := range items {
		snapshot := text(item, keySnapshot)
		if snapshot == "" {
			snapshot = item.ID()
		}
		if !lost[snapshot] && !blobs[digest.Digest(text(item, keyBlob))] {
			continue
		}
		if err := md.Clear(item.ID()); err != nil {
			return fmt.Errorf("drop record: %w", err)
		}
		for _, id := range []string{item.ID(), item.ID() + "-variants", item.ID() + "-view"} {
			if err := lm.Delete(ctx, leases.Lease{ID: id}); err != nil && !errdefs.IsNotFound(err) {
				return fmt.Errorf("drop record: %w", err)
			}
		}
	}
	store := p.mdb.ContentStore()
	for dgst := range blobs {
		if err := store.Delete(within(ctx), dgst); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove damaged blob: %w", err)
		}
		_ = os.Remove(filepath.Join(p.blobs(), dgst.Algorithm().String(), dgst.Encoded()))
	}
	if !r.leases {
		r.note(fmt.Sprintf("%d damaged or missing parts of the cache were dropped", len(blobs)+len(lost)), "what needs them is fetched or built again")
	}
	return p.noteImages(ctx, blobs)
}

// damagedBlobs returns the blobs whose file is gone, has another size, or has another digest: those are looked for among the
// ones that were written to after they were complete, and those that could not be read in the end (see verified).
func (p *parts) damagedBlobs(ctx context.Context) (map[digest.Digest]bool, error) {
	damaged := map[digest.Digest]bool{}
	for _, d := range p.takeSuspects() {
		if !intact(filepath.Join(p.blobs(), d.Algorithm().String(), d.Encoded()), d) {
			damaged[d] = true
		}
	}
	if p.repair.sealed && p.stampBlobs() == p.repair.before.Blobs {
		return damaged, nil
	}
	err := p.mdb.ContentStore().Walk(within(ctx), func(info content.Info) error {
		path := filepath.Join(p.blobs(), info.Digest.Algorithm().String(), info.Digest.Encoded())
		fi, err := os.Lstat(path)
		switch {
		case err != nil || fi.Size() != info.Size:
			damaged[info.Digest] = true
		case p.repair.sealed || fi.ModTime().Sub(info.CreatedAt) > blobSlack:
			if !intact(path, info.Digest) {
				damaged[info.Digest] = true
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w: list blobs: %w", ErrDamaged, err)
	}
	return damaged, nil
}

func intact(path string, dgst digest.Digest) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	v := dgst.Verifier()
	_, err = io.Copy(v, f)
	return err == nil && v.Verified()
}

// noteImages names the images of the local store that miss one of the blobs.
func (p *parts) noteImages(ctx context.Context, blobs map[digest.Digest]bool) error {
	if p.images == nil || len(blobs) == 0 {
		return nil
	}
	list, err := p.images.List(ctx)
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	for _, img := range list {
		missing := false
		err := walkImage(ctx, p.mdb.ContentStore(), img.Target, func(d digest.Digest, _ int64) { missing = missing || blobs[d] })
		if missing || err != nil {
			p.repair.note("the local image "+img.Name+" is damaged", "build or pull it again")
		}
	}
	return nil
}

// blobSlack is by how much a blob's file may be younger than its entry: containerd sets the file's time to that of the commit
// and makes the entry right after it.
const blobSlack = time.Second
