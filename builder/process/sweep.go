package process

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// CgroupParent is the cgroup below which the steps of this state directory's engine run, so that what a killed engine left
// can be told from everybody else's.
func (d Dir) CgroupParent() string {
	sum := sha256.Sum256([]byte(d.path))
	return "optbuild-" + hex.EncodeToString(sum[:6])
}

// sweep removes what a killed engine left: temporary files, runc's state, bundles, empty cgroups. Its processes and mounts
// went with its namespaces. After one that ended in order only temporary files are looked at. We hold the lock. Errors do not
// matter: what could not be removed is tried again next time.
func (d Dir) sweep(s Shape, inOrder bool) {
	if entries, _ := os.ReadDir(d.file(tmpName)); len(entries) > 0 {
		_ = d.discard(tmpName)
		_ = os.Mkdir(d.file(tmpName), 0o700)
	}
	if inOrder {
		return
	}
	removeChildren(d.runcState())
	// Where containerd mounted layers in order to read or to fill them. Not with what is in them: that would be a layer's.
	mounts, _ := fs.Glob(os.DirFS(d.file(runName)), "containerd-mount*")
	for _, m := range mounts {
		_ = os.Remove(filepath.Join(d.file(runName), m))
	}
	bundles, _ := fs.Glob(os.DirFS(d.Cache()), "runc-*/executor/*/config.json") // the state directory's name is no pattern
	for _, b := range bundles {
		_ = os.RemoveAll(filepath.Join(d.Cache(), filepath.Dir(b)))
	}
	if s.Kind == HostRoot {
		d.removeCgroups()
	}
}

// discard moves something in the state directory out of the way. Deleting it may take long: emptyTrash does it while the
// engine works, and what it does not get done is for the next engine.
func (d Dir) discard(name string) error {
	if err := os.MkdirAll(d.file(trashName), 0o700); err != nil {
		return err
	}
	err := os.Rename(d.file(name), filepath.Join(d.file(trashName), fmt.Sprintf("%s-%d", name, time.Now().UnixNano())))
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

func (d Dir) emptyTrash() { removeChildren(d.file(trashName)) }

func removeChildren(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		_ = os.RemoveAll(filepath.Join(dir, e.Name()))
	}
}

// removeCgroups removes our cgroups that have no processes, in each hierarchy of version 1 and in version 2's.
func (d Dir) removeCgroups() {
	const root = "/sys/fs/cgroup"
	removeDirs(filepath.Join(root, d.CgroupParent()))
	hierarchies, _ := os.ReadDir(root)
	for _, h := range hierarchies {
		// Not filepath.Glob, which would read each hierarchy's directory: that takes as long as all else that an end does.
		removeDirs(filepath.Join(root, h.Name(), d.CgroupParent()))
	}
}

// removeDirs removes the directories at and below dir from the leaves up, as far as the kernel lets us: it refuses to
// remove a cgroup with processes.
func removeDirs(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			removeDirs(filepath.Join(dir, e.Name()))
		}
	}
	_ = os.Remove(dir)
}
