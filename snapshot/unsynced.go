package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
)

// volatileOption makes an overlay on which fsync, fdatasync, syncfs, sync and O_SYNC return at once (documented in the kernel's
// Documentation/filesystems/overlayfs.rst, "Volatile mount"; Linux 5.10). What is written reaches the disk as all else does,
// when the kernel writes it back.
const volatileOption = "volatile"

// Unsynced is the mounts that were made with the context that it came with.
type Unsynced struct {
	mu   sync.Mutex
	work []string
}

type unsyncedKey struct{}

// WithoutSync returns a context with which Mounts makes overlays that never sync what is written to them, and what has to be
// told when they have been unmounted. Only what has an upper directory is meant, as in WithLower.
func WithoutSync(ctx context.Context) (context.Context, *Unsynced) {
	u := &Unsynced{}
	return context.WithValue(ctx, unsyncedKey{}, u), u
}

// mounts are the mounts of an active snapshot, without sync.
func (u *Unsynced) mounts(mounts []mount.Mount) []mount.Mount {
	if len(mounts) != 1 || mounts[0].Type != "overlay" || option(mounts[0], upperOption) == "" {
		return mounts
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	m := mounts[0]
	m.Options = append(slices.Clone(m.Options), volatileOption)
	u.work = append(u.work, option(m, workOption))
	return []mount.Mount{m}
}

// Unmounted takes away the marks that the kernel leaves in the work directories, and for which it would refuse to mount the
// snapshots again. It is called each time that what Mounts returned has been unmounted. The files are in the page cache, so that only a crash of the machine could lose them, and such a crash
// empties the cache.
func (u *Unsynced) Unmounted() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	var errs []error
	for _, work := range u.work {
		errs = append(errs, os.RemoveAll(filepath.Join(work, "work", "incompat")))
	}
	return errors.Join(errs...)
}

// CanSkipSync reports whether overlays can be mounted in dir, which must exist, as WithoutSync wants them: the error says why
// not.
func CanSkipSync(dir string) (err error) {
	tmp, err := os.MkdirTemp(dir, "unsynced-")
	if err != nil {
		return err
	}
	defer func() {
		if rerr := os.RemoveAll(tmp); err == nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = rerr
		}
	}()
	at := func(name string) string { return filepath.Join(tmp, name) }
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(at(name), 0o700); err != nil {
			return err
		}
	}
	options := lowerOption + at("lower") + "," + upperOption + at("upper") + "," + workOption + at("work") + "," + volatileOption
	if err := unix.Mount("overlay", at("merged"), "overlay", 0, options); err != nil {
		return fmt.Errorf("mount an overlay with the option %s: %w", volatileOption, err)
	}
	return unix.Unmount(at("merged"), unix.MNT_DETACH)
}
