package export

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/continuity/sysx"
	rootlessmountopts "github.com/moby/buildkit/util/rootless/mountopts"
	"github.com/moby/sys/userns"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// withOverlay calls f with a directory that shows directories laid upon each other, the topmost first, to be read only.
func withOverlay(ctx context.Context, dirs []string, userxattr bool, f func(root string) error) error {
	empty, err := os.MkdirTemp("", "optbuild-empty-") // an overlay has two lower directories at least
	if err != nil {
		return err
	}
	defer os.Remove(empty)
	dirs = append(dirs[:len(dirs):len(dirs)], empty)
	fd, err := openOverlay(dirs, userxattr)
	if err == nil {
		defer unix.Close(fd)
		return f(fmt.Sprintf("/proc/self/fd/%d", fd))
	}
	logrus.WithError(err).Debug("mount layers by mount(2)")
	options := []string{"lowerdir=" + strings.Join(dirs, ":")}
	if userxattr {
		options = append(options, "userxattr")
	}
	view := []mount.Mount{{Type: "overlay", Source: "overlay", Options: options}}
	if userns.RunningInUserNS() {
		if view, err = rootlessmountopts.FixUp(view); err != nil {
			return err
		}
	}
	return mount.WithTempMount(ctx, view, f)
}

// openOverlay mounts an overlay that is nowhere but in a file descriptor, and gone when that is closed. Directories are named one by one (Linux 6.5), up to 500: mount(2) takes all of
// them in one page of options, which some 70 layers fill.
func openOverlay(dirs []string, userxattr bool) (fd int, err error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open overlayfs: %w", err)
	}
	defer unix.Close(fs)
	for _, d := range dirs {
		if err := unix.FsconfigSetString(fs, "lowerdir+", d); err != nil {
			return -1, fmt.Errorf("lay %s below an overlay: %w", d, err)
		}
	}
	if userxattr {
		err = unix.FsconfigSetFlag(fs, "userxattr")
	}
	if err = errors.Join(err, unix.FsconfigCreate(fs)); err != nil {
		return -1, fmt.Errorf("make an overlay: %w", err)
	}
	if fd, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY); err != nil {
		return -1, fmt.Errorf("mount an overlay: %w", err)
	}
	return fd, nil
}

func isWhiteout(fi os.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && fi.Mode()&os.ModeCharDevice != 0 && st.Rdev == 0
}

// isOpaque looks at overlayfs's attributes of a directory; one that was renamed without being copied is an error.
func isOpaque(dir string) (bool, error) {
	for _, ns := range []string{"trusted", "user"} {
		for _, name := range []string{"redirect", "opaque"} {
			v, err := sysx.LGetxattr(dir, ns+".overlay."+name)
			switch {
			case errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM):
				continue
			case err != nil:
				return false, fmt.Errorf("look at attributes of %s: %w", dir, err)
			case name == "redirect" && len(v) > 0:
				return false, fmt.Errorf("%w: %s was renamed without being copied", errUnsupported, dir)
			case name == "opaque" && string(v) == "y":
				return true, nil
			}
		}
	}
	return false, nil
}
