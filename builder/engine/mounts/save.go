package mounts

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/cache/mounts"
)

const freshPrefix = "fresh-"

// attempts is how often a mount is read that others write to.
const attempts = 2

// Save makes archives of the mounts that a build has used and changed, and gives them to a store. What goes wrong with one of them is told, and the others are saved; the
// error is ctx's alone. It may be called again, and saves then what was used since.
func (k *Keeper) Save(ctx context.Context, b *Build, to Store) error {
	b.mu.Lock()
	used := b.used
	b.used = nil
	b.mu.Unlock()
	total := b.TotalBytes
	if total == 0 {
		total = defaultTotal
	}
	for _, key := range slices.Sorted(maps.Keys(used)) {
		u := used[key]
		var bytes int64
		var err error
		for range attempts {
			if bytes, err = k.save(ctx, b, to, key, u, total); !errors.Is(err, mounts.ErrChanged) {
				break
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		switch {
		case errors.Is(err, mounts.ErrChanged):
			logrus.Infof("cache mount %s is not saved: others write to it", u.id)
		case err != nil:
			b.warn("cache mount %s is not saved: %v", u.id, err)
		}
		total -= bytes
	}
	if len(used) == 0 {
		return nil
	}
	if err := to.Commit(ctx); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b.warn("cache mounts are not saved: %v", err)
	}
	return nil
}

// save saves one mount, and returns how many bytes it has.
func (k *Keeper) save(ctx context.Context, b *Build, to Store, key string, u *use, room int64) (int64, error) {
	users, uses := k.usage(u.path)
	if users > 0 {
		return 0, mounts.ErrChanged // whoever writes now will save it
	}
	if _, err := os.Lstat(u.path); errors.Is(err, os.ErrNotExist) {
		return 0, nil // nothing was ever written, or it was pruned
	}
	begun := time.Now()
	last, found, err := to.Find(ctx, key)
	if err != nil {
		return 0, err
	}
	state := k.recall(u.path, false)
	if found && state.Manifest.Digest == last.Manifest.Digest {
		if same, err := mounts.Unchanged(ctx, u.path, state.Head); err != nil || same {
			return 0, err
		}
	}
	kind := mounts.KindOf(u.Dest)
	o := mounts.SaveOptions{Limits: b.Limits, MayGo: kind.MayGo, MaxAge: b.MaxAge, State: k.recall(u.path, true)}
	if found {
		if o.Previous, err = mounts.Fetch(ctx, to, last.Manifest, b.Limits); err != nil {
			logrus.WithError(err).Infof("the last archive of cache mount %s", u.id)
			last, o.Previous = Archive{}, nil
		}
	}
	fresh, err := newFresh(k.o.Dir)
	if err != nil {
		return 0, err
	}
	defer fresh.remove()
	s, err := mounts.Save(ctx, u.path, fresh, o)
	if err != nil {
		return 0, err
	}
	bytes, entries := s.Manifest.Size()
	a := Archive{Created: time.Now(), Manifest: s.Descriptor, Holds: s.Manifest.Descriptors(), Note: map[string]string{
		"id": u.id, "platform": u.platform, "bytes": fmt.Sprint(bytes), "files": fmt.Sprint(entries),
	}}
	if entries == 1 && !found {
		return 0, k.remember(u.path, s.State) // it is empty, as it is on a machine that does not have it
	}
	if bytes > room {
		return 0, fmt.Errorf("%w: it has %d bytes, and the cache mounts of a build may have %d more", mounts.ErrTooLarge, bytes, room)
	}
	if !kind.Checked && u.copied != nil {
		d, list, err := listCopied(ctx, u.copied)
		if err == nil {
			err = fresh.Put(ctx, d, list)
		}
		if err != nil {
			logrus.WithError(err).Infof("list what was copied for cache mount %s", u.id)
		} else {
			a.Holds = append(a.Holds, d)
		}
	}
	if now, n := k.usage(u.path); now > 0 || n != uses {
		return 0, mounts.ErrChanged
	}
	if found && last.Manifest.Digest == a.Manifest.Digest {
		return bytes, k.remember(u.path, s.State)
	}
	a.Fresh = fresh.list()
	if err := to.Send(ctx, key, a, fresh); err != nil {
		return 0, err
	}
	if left := s.LeftOut.String(); left != "" {
		b.warn("cache mount %s is saved without %s", u.id, left)
	}
	logrus.Infof("cache mount %s: saved %d bytes in %d files and directories, %d bytes new, in %v", u.id, bytes, entries, s.New, time.Since(begun).Round(time.Millisecond))
	return bytes, k.remember(u.path, s.State)
}

// fresh is a directory with blobs that are made now, until they have been sent: nobody waits for the network while a mount is read.
type fresh struct {
	dir string

	mu    sync.Mutex
	blobs []ocispecs.Descriptor
}

func newFresh(dir string) (*fresh, error) {
	dir, err := os.MkdirTemp(dir, freshPrefix)
	if err != nil {
		return nil, err
	}
	return &fresh{dir: dir}, nil
}

func (f *fresh) remove() {
	if err := os.RemoveAll(f.dir); err != nil {
		logrus.WithError(err).Warnf("remove %s", filepath.Base(f.dir))
	}
}

func (f *fresh) path(d ocispecs.Descriptor) string { return filepath.Join(f.dir, d.Digest.Encoded()) }

// Put keeps a blob.
func (f *fresh) Put(_ context.Context, d ocispecs.Descriptor, b []byte) error {
	if err := os.WriteFile(f.path(d), b, 0o600); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.blobs = append(f.blobs, d)
	return nil
}

// ReaderAt reads a blob that was put.
func (f *fresh) ReaderAt(_ context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	return local.OpenReader(f.path(d))
}

func (f *fresh) list() []ocispecs.Descriptor {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.blobs)
}
