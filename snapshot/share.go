package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// errNotLink is what reading a link says of a directory.
const errNotLink = unix.EINVAL

// aliasName is the name, beside a snapshot's fs, of a link that is about to take fs's place, and then of what was there.
const aliasName = "alias"

// Share gives the files of an active or committed snapshot to the shared layer id, which must be new, and makes the snapshot an
// alias of it. It takes two names and a rename, and mounts that have the directory as a lower one are not disturbed. After it
// the snapshot can't be written to. A snapshot that is an alias of id already is left as it is.
//
// A walk of the directory that has begun is not disturbed either: its names lead to the same files through the link. But one
// that begins with a name that was handed out before (in mounts, for BuildKit's differ) would stop at the link: share the
// files of a step when it ended and before others get to know its snapshot.
//
// ErrAlreadyExists says that id is taken, ErrFailedPrecondition that the snapshot is a view or an alias of something else,
// ErrNotImplemented that the file system can't exchange two names.
func (l *Layers) Share(ctx context.Context, key, id string) error {
	if err := l.share(ctx, key, id); err != nil {
		return fmt.Errorf("share layer %s: %w", id, err)
	}
	return nil
}

func (l *Layers) share(ctx context.Context, key, id string) error {
	if !validID(id) {
		return fmt.Errorf("%q can't be the id of a layer: %w", id, errdefs.ErrInvalidArgument)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	number, info, usage, err := l.info(ctx, key)
	if err != nil {
		return err
	}
	if info.Kind == snapshots.KindView {
		return fmt.Errorf("snapshot %s has no files of its own: %w", key, errdefs.ErrFailedPrecondition)
	}
	if done, err := l.isAlias(number, id); done || err != nil {
		return err
	}
	if err := l.readUsers(ctx); err != nil {
		return err
	}
	if l.Shared(id) {
		return errdefs.ErrAlreadyExists
	}
	// The link is made where the files will be, and then both change places at once. Until then it leads to itself.
	if err := os.MkdirAll(l.SharedPath(id), 0o700); err != nil {
		return err
	}
	err = os.Symlink(linkTo(id), l.FilesPath(id))
	if err == nil || errors.Is(err, fs.ErrExist) { // left by a process that was killed
		err = l.shorten(number, id)
	}
	if err == nil {
		err = exchange(l.FilesPath(id), l.own(number))
	}
	if err != nil {
		_ = os.Remove(l.FilesPath(id))  // the link
		_ = os.Remove(l.SharedPath(id)) // unless the caller has files there
		return err
	}
	l.use(id, number)
	if info.Kind == snapshots.KindCommitted {
		l.setUsage(id, usage)
	}
	return nil
}

// Alias gives an active snapshot, which must be empty, the files of the shared layer id. From then on it can't be written to.
// ErrNotFound says that there is no such layer (any more), ErrFailedPrecondition that the snapshot isn't active, has files, or
// is an alias of something else.
func (l *Layers) Alias(ctx context.Context, key, id string) error {
	if err := l.alias(ctx, key, id); err != nil {
		return fmt.Errorf("take shared layer %s: %w", id, err)
	}
	return nil
}

func (l *Layers) alias(ctx context.Context, key, id string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.Shared(id) {
		return errdefs.ErrNotFound
	}
	number, info, _, err := l.info(ctx, key)
	if err != nil {
		return err
	}
	if info.Kind != snapshots.KindActive {
		return fmt.Errorf("snapshot %s is not active: %w", key, errdefs.ErrFailedPrecondition)
	}
	if done, err := l.isAlias(number, id); done || err != nil {
		return err
	}
	if err := l.readUsers(ctx); err != nil {
		return err
	}
	own := l.own(number)
	if empty, err := isEmpty(own); err != nil || !empty {
		return errors.Join(err, fmt.Errorf("snapshot %s has files: %w", key, errdefs.ErrFailedPrecondition))
	}
	aside := filepath.Join(filepath.Dir(own), aliasName)
	if err := os.Remove(aside); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a process that was killed
		return err
	}
	if err := os.Symlink(linkTo(id), aside); err != nil {
		return err
	}
	if err := l.shorten(number, id); err != nil {
		return err
	}
	if err := exchange(aside, own); err != nil {
		return errors.Join(err, os.Remove(aside))
	}
	if err := os.Remove(aside); err != nil { // somebody wrote to it meanwhile
		return errors.Join(err, exchange(aside, own), os.Remove(aside), errdefs.ErrFailedPrecondition)
	}
	l.use(id, number)
	return nil
}

// shorten makes the short link of a snapshot that is about to become an alias. One that a killed process left is of no layer or of another one.
func (l *Layers) shorten(number, id string) error {
	if err := os.Remove(l.short(number)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(filepath.Dir(linkTo(id)), l.short(number))
}

// isAlias is true when the snapshot is an alias of id; if it is one of another layer, that is an error.
func (l *Layers) isAlias(number, id string) (bool, error) {
	switch d, err := l.directory(number); {
	case err != nil:
		return false, err
	case d.Shared != "" && d.Shared != id:
		return false, fmt.Errorf("snapshot has layer %s: %w", d.Shared, errdefs.ErrFailedPrecondition)
	default:
		return d.Shared == id, nil
	}
}

// SharedPath is the directory of a shared layer. Its files are in fs; others may be kept beside it, but not before Share has
// returned: what belongs to no snapshot is removed. They go when the layer goes. Names that begin with "fs" are taken.
func (l *Layers) SharedPath(id string) string { return filepath.Join(l.root, sharedDir, id) }

// FilesPath is the directory of a shared layer's files.
func (l *Layers) FilesPath(id string) string { return filepath.Join(l.SharedPath(id), filesDir) }

// Shared is true if there is a shared layer id. It may be gone a moment later, unless a snapshot of the caller refers to it.
func (l *Layers) Shared(id string) bool {
	if !validID(id) {
		return false
	}
	fi, err := os.Lstat(l.FilesPath(id))
	return err == nil && fi.IsDir()
}

// validID is true for what can be the name of a directory that a user may have to look at.
func validID(id string) bool {
	return id != "" && len(id) <= 255 && id[0] != '.' && !strings.ContainsAny(id, "/:,\\\x00")
}

// exchange lets two names change places.
func exchange(a, b string) error {
	err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("the file system can't exchange names: %w", errdefs.ErrNotImplemented)
	}
	if err != nil {
		return &os.LinkError{Op: "exchange", Old: a, New: b, Err: err}
	}
	return nil
}

func isEmpty(dir string) (bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if _, err = f.Readdirnames(1); errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}
