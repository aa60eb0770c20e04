package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
)

// Layers is containerd's overlay snapshotter, which it wraps, with three abilities more: it tells which directories a snapshot
// consists of (WithPrepared, Chain), lets a caller replace the lower directories of one mount (WithLower), and lets several
// snapshots have the same directory of files (Share, Alias). README.md shows the layout.
//
// Keys are those of this snapshotter, not those of containerd's metadata database that wraps it: use the ones that come in
// Prepared and in WithLower's function. All methods may be called concurrently.
type Layers struct {
	inner   snapshots.Snapshotter // the overlay snapshotter
	cleaner snapshots.Cleaner     // the same one
	records *storage.MetaStore    // and its database
	root    string
	remote  MountRemote

	// mu guards which shared layers there are and who refers to them. Transactions of records may begin while it is held,
	// and so it must not be taken within one.
	mu sync.Mutex
	// users are the numbers of the snapshots that refer to each shared layer; nil before they were read from the disk.
	users map[string]map[uint64]bool
	// usages are the sizes of shared layers, as far as they were asked for.
	usages map[string]snapshots.Usage
}

var (
	_ snapshots.Snapshotter = (*Layers)(nil)
	_ snapshots.Cleaner     = (*Layers)(nil)
)

// Directory is one layer of files on the disk.
type Directory struct {
	// Path is where the files are.
	Path string
	// Number is the N of snapshots/N, which is never used twice below one root.
	Number string
	// Shared is the id of the shared layer, empty when the files are the snapshot's own.
	Shared string
	// Remote is the id of the remote layer (see Defer), of which only parts may be here.
	Remote string
}

// newLayers wraps the overlay snapshotter of root, whose records are given.
func newLayers(root string, inner snapshots.Snapshotter, records *storage.MetaStore) *Layers {
	l := &Layers{inner: inner, records: records, root: root, usages: map[string]snapshots.Usage{}}
	l.cleaner, _ = inner.(snapshots.Cleaner)
	return l
}

// Chain returns the directories of a snapshot, the topmost first: its own one, which for a view is empty, and those of its
// ancestors.
func (l *Layers) Chain(ctx context.Context, key string) ([]Directory, error) {
	var numbers []string
	err := l.records.WithTransaction(ctx, false, func(ctx context.Context) error {
		for name := key; name != ""; {
			number, info, _, err := storage.GetInfo(ctx, name)
			if err != nil {
				return err
			}
			numbers = append(numbers, number)
			name = info.Parent
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the layers of snapshot %s: %w", key, err)
	}
	chain := make([]Directory, len(numbers))
	for i, n := range numbers {
		if chain[i], err = l.directory(n); err != nil {
			return nil, err
		}
	}
	return chain, nil
}

// Prepare makes a snapshot for writing, and tells the function of WithPrepared about it.
func (l *Layers) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	if err := l.showRemote(ctx, parent); err != nil {
		return nil, err
	}
	mounts, err := l.inner.Prepare(ctx, key, parent, opts...)
	if err != nil {
		return nil, err
	}
	if f, ok := ctx.Value(preparedKey{}).(func(Prepared)); ok {
		chain, err := l.Chain(ctx, key)
		if err != nil {
			return nil, errors.Join(err, l.Remove(ctx, key))
		}
		f(Prepared{Key: key, Parent: parent, Directory: chain[0].Path, Lower: chain[1:]})
	}
	return l.resolveNew(ctx, key, mounts)
}

// View makes a snapshot for reading.
func (l *Layers) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	if err := l.showRemote(ctx, parent); err != nil {
		return nil, err
	}
	mounts, err := l.inner.View(ctx, key, parent, opts...)
	if err != nil {
		return nil, err
	}
	return l.resolveNew(ctx, key, mounts)
}

// resolveNew is resolve for a snapshot that was just made: it doesn't stay when the caller gets an error.
func (l *Layers) resolveNew(ctx context.Context, key string, mounts []mount.Mount) ([]mount.Mount, error) {
	mounts, err := l.resolve(mounts)
	if err != nil {
		return nil, errors.Join(err, l.Remove(ctx, key))
	}
	return mounts, nil
}

// Mounts returns the mounts of an active snapshot or a view. Those of an active snapshot are for reading only once it is an
// alias: what is shared doesn't change.
func (l *Layers) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	mounts, err := l.inner.Mounts(ctx, key)
	if err != nil {
		return nil, err
	}
	if mounts, err = l.resolve(mounts); err != nil {
		return nil, err
	}
	l.tellRemote(ctx, mounts)
	if f, ok := ctx.Value(lowerKey{}).(LowerFunc); ok {
		if mounts, err = l.replaceLower(ctx, key, mounts, f); err != nil {
			return nil, err
		}
	}
	if u, ok := ctx.Value(unsyncedKey{}).(*Unsynced); ok {
		mounts = u.mounts(mounts)
	}
	return l.withOneDevice(ctx, mounts), err
}

// Stat describes a snapshot.
func (l *Layers) Stat(ctx context.Context, key string) (snapshots.Info, error) {
	return l.inner.Stat(ctx, key)
}

// Update changes the labels of a snapshot.
func (l *Layers) Update(ctx context.Context, info snapshots.Info, fields ...string) (snapshots.Info, error) {
	return l.inner.Update(ctx, info, fields...)
}

// Close closes the database.
func (l *Layers) Close() error { return l.inner.Close() }

// Commit makes an active snapshot a committed one. What the overlay snapshotter then writes down as the size of an alias is
// that of a link: Usage doesn't look at it.
func (l *Layers) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	return l.inner.Commit(ctx, name, key, opts...)
}

// Remove forgets a snapshot. Its files go with the next Cleanup; those of a shared layer, when no other snapshot refers to it.
func (l *Layers) Remove(ctx context.Context, key string) error {
	number, _, _, err := l.info(ctx, key)
	if err != nil {
		return fmt.Errorf("remove snapshot: %w", err)
	}
	if err := l.inner.Remove(ctx, key); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(number)
	return nil
}

// Walk calls f for each snapshot. Unlike containerd's, it is called outside of the transaction, and may call all methods: a
// transaction in a transaction is a deadlock when another one has to enlarge the database meanwhile (documented in bbolt).
func (l *Layers) Walk(ctx context.Context, f snapshots.WalkFunc, filters ...string) error {
	var infos []snapshots.Info
	err := l.inner.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		infos = append(infos, info)
		return nil
	}, filters...)
	if err != nil && !errdefs.IsNotFound(err) { // no snapshot was ever made
		return err
	}
	for _, info := range infos {
		if err := f(ctx, info); err != nil {
			return err
		}
	}
	return nil
}

func (l *Layers) info(ctx context.Context, key string) (number string, info snapshots.Info, usage snapshots.Usage, err error) {
	err = l.records.WithTransaction(ctx, false, func(ctx context.Context) error {
		number, info, usage, err = storage.GetInfo(ctx, key)
		return err
	})
	return number, info, usage, err
}

// directory looks up where the files of snapshots/N are.
func (l *Layers) directory(number string) (Directory, error) {
	if d, ok, err := l.remoteDirectory(number); ok || err != nil {
		return d, err
	}
	path := l.own(number)
	id, err := sharedBy(path)
	if err != nil {
		return Directory{}, err
	}
	if id != "" {
		path = l.FilesPath(id)
	}
	return Directory{Path: path, Number: number, Shared: id}, nil
}

// own is the name of the directory of a snapshot's files, or of the link in its place.
func (l *Layers) own(number string) string {
	return filepath.Join(l.root, snapshotsDir, number, filesDir)
}

const (
	snapshotsDir = "snapshots" // containerd's name
	filesDir     = "fs"        // containerd's name
	sharedDir    = "shared"
)

// shortName is the name, beside the fs of an alias, of a link to the directory of its shared layer: see mountName.
const shortName = "s"

// short is the name of that link.
func (l *Layers) short(number string) string {
	return filepath.Join(l.root, snapshotsDir, number, shortName)
}

// linkTo is what the link says that a snapshot has in place of its directory.
func linkTo(id string) string { return filepath.Join("..", "..", sharedDir, id, filesDir) }

// sharedBy returns the id of the shared layer that the link at path leads to, empty if a directory is there.
func sharedBy(path string) (string, error) {
	link, err := os.Readlink(path)
	if errors.Is(err, errNotLink) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("look up layer: %w", err)
	}
	id := strings.TrimSuffix(strings.TrimPrefix(link, filepath.Join("..", "..", sharedDir)+"/"), "/"+filesDir)
	if !validID(id) || linkTo(id) != link {
		return "", fmt.Errorf("look up layer: %s is a link to %q, which is no shared layer: %w", path, link, errdefs.ErrFailedPrecondition)
	}
	return id, nil
}
