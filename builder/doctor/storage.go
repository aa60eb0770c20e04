package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/builder/process"
)

func (m *Machine) exists(path string) bool {
	_, err := os.Stat(m.Root + path)
	return err == nil
}

func (m *Machine) writable(path string) bool { return unix.Access(m.Root+path, unix.W_OK) == nil }

func stateDirectory(_ context.Context, m *Machine) *Result {
	d, err := process.OpenDir(m.StateDir)
	if err != nil {
		return fail(err.Error(), process.Remedy(err))
	}
	disk, err := m.Disk(d.Path())
	switch {
	case err != nil:
		return fail(fmt.Sprintf("%s: %v", d.Path(), err))
	case disk.Type != "":
		return warn(fmt.Sprintf("%s is on %s, which can't hold the layers of an overlay, or only slowly", d.Path(), disk.Type),
			"choose one on a local disk (in a container: on a volume): optbuild --root DIR, or OPTBUILD_ROOT")
	}
	return ok(d.Path())
}

// Space below which builds are bound to fail soon, and below which larger ones do.
const (
	minSpace    = 256 << 20
	littleSpace = 4 << 30
	minInodes   = 20000 // a node_modules has more
)

func diskSpace(_ context.Context, m *Machine) *Result {
	path := m.StateDir
	for path != filepath.Dir(path) { // it may not exist yet
		if _, err := os.Stat(path); err == nil {
			break
		}
		path = filepath.Dir(path)
	}
	d, err := m.Disk(path)
	if err != nil {
		return fail(fmt.Sprintf("%s: %v", path, err))
	}
	remedy := []string{"`optbuild prune` empties the cache; or choose another disk: optbuild --root DIR"}
	found := units.BytesSize(float64(d.Free)) + " free"
	switch {
	case d.Free < minSpace:
		return fail("only "+found, remedy...)
	case d.Inode > 0 && d.Files < minInodes:
		return fail(fmt.Sprintf("only %d inodes free", d.Files), remedy...)
	case d.Free < littleSpace:
		return warn("only "+found, remedy...)
	}
	return ok(found)
}

func devFuse(_ context.Context, m *Machine) *Result {
	const consequence = ": steps are not watched, and run again after every edit"
	switch {
	case !m.exists("/dev/fuse"):
		return warn("is missing"+consequence, "modprobe fuse   # in a container: docker run --device /dev/fuse")
	case unix.Access(m.Root+"/dev/fuse", unix.R_OK|unix.W_OK) != nil:
		return warn("may not be opened by this user"+consequence, "as root: chmod 0666 /dev/fuse")
	}
	return ok("usable")
}
