// Package snapshot chooses and wraps the containerd snapshotter that holds the file systems of a build.
//
// What comes in is a directory; what goes out is a constructor of a containerd snapshotter for it. With overlayfs it makes a
// Layers, which can put other directories below a mount and let snapshots share their files. The package knows nothing of
// BuildKit or of the other packages of optbuild.
package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/containerd/v2/plugins/snapshots/native"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay/overlayutils"
	"github.com/containerd/continuity/fs"
	fuseoverlayfs "github.com/containerd/fuse-overlayfs-snapshotter/v2"
	"github.com/moby/sys/userns"
	bolt "go.etcd.io/bbolt"
)

// Choice is a snapshotter that works in the directory it was chosen for.
type Choice struct {
	// Name is containerd's name of it: "overlayfs", "fuse-overlayfs" or "native".
	Name string
	// New opens it on a directory, which it creates.
	New func(root string) (snapshots.Snapshotter, error)
	// Slow says why a better one was passed over; empty when it is the best there is.
	Slow string
}

// Choose returns the named snapshotter, or for "" and "auto" the first of overlayfs, fuse-overlayfs and native that works
// in dir. dir must exist.
func Choose(dir, name string) (Choice, error) {
	switch name {
	case "", "auto":
		return remembered(dir), nil
	case "overlayfs":
		return Choice{Name: name, New: newOverlay}, nil
	case "fuse-overlayfs":
		return Choice{Name: name, New: newFuseOverlay}, nil
	case "native":
		return Choice{Name: name, New: native.NewSnapshotter}, nil
	default:
		return Choice{}, fmt.Errorf("unknown snapshotter %q (auto, overlayfs, fuse-overlayfs or native)", name)
	}
}

// choiceFile remembers the choice below the directory: probing mounts an overlay, and costs a start some milliseconds.
const choiceFile = "snapshotter"

// remembered returns the choice that was made in dir since the machine was booted, or makes it. A fallback is not
// remembered: the next start may find what was missing.
func remembered(dir string) Choice {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return choose(dir)
	}
	// The user namespace is part of the key: an overlay that root could mount may be refused to others.
	ns, _ := os.Readlink("/proc/self/ns/user")
	if userns.RunningInUserNS() {
		ns = "inner" // each engine has a new one
	}
	line := fmt.Sprintf("overlayfs %s %s\n", strings.TrimSpace(string(boot)), ns)
	path := filepath.Join(dir, choiceFile)
	if b, err := os.ReadFile(path); err == nil && string(b) == line {
		return Choice{Name: "overlayfs", New: newOverlay}
	}
	c := choose(dir)
	if c.Name == "overlayfs" {
		_ = os.WriteFile(path, []byte(line), 0o600) // not remembered is slower, not wrong
	}
	return c
}

func choose(dir string) Choice {
	errOverlay := overlaySupported(dir)
	if errOverlay == nil {
		return Choice{Name: "overlayfs", New: newOverlay}
	}
	errFuse := fuseoverlayfs.Supported(dir)
	if errFuse == nil {
		return Choice{Name: "fuse-overlayfs", New: newFuseOverlay, Slow: errOverlay.Error()}
	}
	return Choice{Name: "native", New: native.NewSnapshotter, Slow: errors.Join(errOverlay, errFuse).Error()}
}

// overlaySupported is nil if overlays can be mounted in dir. To unmount the one that containerd tries waits until the file system has written back all that was written to it by anybody, a
// CI runner's checkout for instance: so one that waits for nothing is tried first, which only a kernel can do that has all that containerd looks for.
func overlaySupported(dir string) error {
	if ok, err := fs.SupportsDType(dir); err == nil && ok && CanSkipSync(dir) == nil {
		return nil
	}
	return overlayutils.Supported(dir)
}

// Removal is asynchronous, as in buildkitd: directories of removed snapshots are deleted by the snapshotter's Cleanup. Unlike
// there, the records of snapshots are written without fsync, like the engine's other databases: each step makes some of them.
//
// It is a *Layers; the other choices are not.
func newOverlay(root string) (snapshots.Snapshotter, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	records, err := storage.NewMetaStore(filepath.Join(root, "metadata.db"), func(o *bolt.Options) error {
		o.NoSync = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	inner, err := overlay.NewSnapshotter(root, overlay.AsynchronousRemove, overlay.WithMetaStore(records))
	if err != nil {
		return nil, err
	}
	return newLayers(root, inner, records), nil
}

func newFuseOverlay(root string) (snapshots.Snapshotter, error) {
	return fuseoverlayfs.NewSnapshotter(root)
}
