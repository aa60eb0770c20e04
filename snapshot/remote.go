package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// A remote layer is a layer of which only parts are here: something is mounted that fetches what is looked at. In place of a snapshot's files there is a link into a directory that
// exists only while it is mounted, since the directory above it is a file system in memory, in the mount namespace of one process (see RemoteDir). Whoever comes later, be it the next
// process, one of another version, or a person, finds a link that leads nowhere: an error, never a directory with files missing.

const (
	remoteDir  = "remote"
	remoteNote = "remote" // beside a snapshot's fs: what is needed to mount it again
)

// MountRemote mounts the remote layer id at RemotePath(id), which does not exist. The note is what Defer was given.
type MountRemote func(id string, note []byte) error

// Defer gives an active snapshot, which must be empty, the files of the remote layer id, and keeps a note from which it can be mounted. It need not be mounted yet. From then on the
// snapshot can't be written to. ErrFailedPrecondition says that it is not active, or has files.
func (l *Layers) Defer(ctx context.Context, key, id string, note []byte) error {
	if err := l.deferFiles(ctx, key, id, note); err != nil {
		return fmt.Errorf("take remote layer %s: %w", id, err)
	}
	return nil
}

func (l *Layers) deferFiles(ctx context.Context, key, id string, note []byte) error {
	if !validID(id) {
		return fmt.Errorf("%q can't be the id of a layer: %w", id, errdefs.ErrInvalidArgument)
	}
	number, info, _, err := l.info(ctx, key)
	if err != nil {
		return err
	}
	own := l.own(number)
	if fi, err := os.Lstat(own); err != nil || info.Kind != snapshots.KindActive || !fi.IsDir() {
		return errors.Join(err, fmt.Errorf("snapshot %s is not active, or has a layer: %w", key, errdefs.ErrFailedPrecondition))
	}
	if empty, err := isEmpty(own); err != nil || !empty {
		return errors.Join(err, fmt.Errorf("snapshot %s has files: %w", key, errdefs.ErrFailedPrecondition))
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(own), remoteNote), note, 0o600); err != nil {
		return err
	}
	aside := filepath.Join(filepath.Dir(own), aliasName)
	if err := os.Symlink(linkToRemote(id), aside); err != nil {
		return err
	}
	if err := exchange(aside, own); err != nil {
		return errors.Join(err, os.Remove(aside))
	}
	return os.Remove(aside)
}

// SetRemote sets what mounts remote layers when they are needed. It must be called before any other method, if at all: without it, snapshots with remote layers can't be mounted.
func (l *Layers) SetRemote(mount MountRemote) { l.remote = mount }

// RemoteDir is where remote layers are mounted. The caller mounts a file system there that ends with its process.
func (l *Layers) RemoteDir() string { return filepath.Join(l.root, remoteDir) }

// RemotePath is the directory of a remote layer's files, while it is mounted.
func (l *Layers) RemotePath(id string) string { return filepath.Join(l.RemoteDir(), id, filesDir) }

// remoteDirectory is directory for a snapshot with a remote layer: it returns when that is mounted. ok is false if the snapshot has none.
func (l *Layers) remoteDirectory(number string) (d Directory, ok bool, err error) {
	id := remoteBy(l.own(number))
	if id == "" {
		return d, false, nil
	}
	d = Directory{Path: l.RemotePath(id), Number: number, Remote: id}
	if _, err := os.Lstat(d.Path); err == nil {
		return d, true, nil
	} else if !errors.Is(err, fs.ErrNotExist) || l.remote == nil {
		return d, true, fmt.Errorf("look up remote layer: %w", err)
	}
	note, err := os.ReadFile(filepath.Join(l.root, snapshotsDir, number, remoteNote))
	if err != nil {
		return d, true, fmt.Errorf("look up remote layer: %w", err)
	}
	if err := l.remote(id, note); err != nil {
		return d, true, fmt.Errorf("mount remote layer: %w", err)
	}
	return d, true, nil
}

// RemoteNotes gives f the notes of all snapshots with remote layers.
func (l *Layers) RemoteNotes(f func(note []byte)) error {
	if _, err := os.Lstat(l.RemoteDir()); err != nil {
		return nil // there never were any
	}
	all, err := list(filepath.Join(l.root, snapshotsDir))
	if err != nil {
		return err
	}
	for _, path := range all {
		b, err := os.ReadFile(filepath.Join(path, remoteNote))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read the note of a remote layer: %w", err)
		}
		f(b)
	}
	return nil
}

// showRemote mounts a parent's remote layer: the overlay snapshotter looks at its owner.
func (l *Layers) showRemote(ctx context.Context, parent string) error {
	if parent == "" || l.remote == nil {
		return nil
	}
	number, _, _, err := l.info(ctx, parent)
	if err != nil {
		return nil // the snapshotter says so in its own words
	}
	_, _, err = l.remoteDirectory(number)
	return err
}

type oneDeviceKey struct{}

// WithOneDevice returns a context with which Mounts makes all files of an overlay with remote layers be of one device, as they are without: else `tar --one-file-system` leaves some out. It is
// for steps; BuildKit does not understand the option where it compares layers.
func WithOneDevice(ctx context.Context) context.Context {
	return context.WithValue(ctx, oneDeviceKey{}, true)
}

const oneDevice = "xino=on"

func (l *Layers) withOneDevice(ctx context.Context, mounts []mount.Mount) []mount.Mount {
	if ctx.Value(oneDeviceKey{}) == nil {
		return mounts
	}
	for i, m := range mounts {
		if m.Type == "overlay" && len(l.RemoteIn(m)) > 0 && !slices.Contains(m.Options, oneDevice) {
			mounts[i].Options = append(slices.Clone(m.Options), oneDevice)
		}
	}
	return mounts
}

// RemoteIn returns the ids of the remote layers in a mount of a snapshot, be it an overlay or of one directory.
func (l *Layers) RemoteIn(m mount.Mount) []string {
	var paths []string
	switch m.Type {
	case "overlay":
		paths = strings.Split(option(m, lowerOption), ":")
	case "bind":
		paths = []string{m.Source}
	}
	var ids []string
	for _, path := range paths {
		if rest, ok := strings.CutPrefix(Files(path), l.RemoteDir()+"/"); ok {
			ids = append(ids, filepath.Dir(rest))
		}
	}
	return ids
}

// Has tells whether a path is below the directory in which the snapshots are.
func (l *Layers) Has(path string) bool {
	return strings.HasPrefix(filepath.Clean(path), l.root+"/")
}

type remoteKey struct{}

// WithRemote returns a context with which Mounts tells f, before WithLower's function replaces any of them, which remote layers a snapshot consists of; there may be none.
func WithRemote(ctx context.Context, f func(ids []string)) context.Context {
	return context.WithValue(ctx, remoteKey{}, f)
}

func (l *Layers) tellRemote(ctx context.Context, mounts []mount.Mount) {
	f, ok := ctx.Value(remoteKey{}).(func([]string))
	if !ok {
		return
	}
	var ids []string
	for _, m := range mounts {
		ids = append(ids, l.RemoteIn(m)...)
	}
	f(ids)
}

// elsewhere is true for files that are not in the snapshot's own directory.
func (d Directory) elsewhere() bool { return d.Shared != "" || d.Remote != "" }

func linkToRemote(id string) string { return filepath.Join("..", "..", remoteDir, id, filesDir) }

// remoteBy returns the id of the remote layer that the link at path leads to, empty if there is none.
func remoteBy(path string) string {
	link, err := os.Readlink(path)
	if err != nil {
		return ""
	}
	id := strings.TrimSuffix(strings.TrimPrefix(link, filepath.Join("..", "..", remoteDir)+"/"), "/"+filesDir)
	if !validID(id) || linkToRemote(id) != link {
		return ""
	}
	return id
}
