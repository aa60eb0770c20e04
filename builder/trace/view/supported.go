package view

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// Supported returns nil when a view can be mounted by this process, and else an error that says what is missing. It tries that once,
// with a mount that is attached nowhere.
func Supported() error { return supported() }

var supported = sync.OnceValue(func() error {
	if err := try(); err != nil {
		return fmt.Errorf("watch what steps read: %w", err)
	}
	return nil
})

func try() error {
	const device = "/dev/fuse"
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no %s here: %w", device, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s may not be opened by this user: %w", device, err)
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("the kernel has no FUSE: %w", err)
	case err != nil:
		return fmt.Errorf("open %s: %w", device, err)
	}
	defer unix.Close(fd)
	err = createMount(fd)
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("FUSE may not be mounted here: %w", err)
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("the kernel has no FUSE, or not in this user namespace: %w", err)
	case errors.Is(err, unix.ENOSYS):
		return nil // a kernel without this way to try (before 5.2), or a filter: Mount will tell
	}
	return err
}

// createMount makes a FUSE mount that is attached nowhere and goes at once.
func createMount(device int) error {
	config, err := unix.Fsopen("fuse", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(config)
	for _, o := range [][2]string{
		{"fd", strconv.Itoa(device)}, {"rootmode", "40000"},
		{"user_id", strconv.Itoa(os.Geteuid())}, {"group_id", strconv.Itoa(os.Getegid())},
	} {
		if err := unix.FsconfigSetString(config, o[0], o[1]); err != nil {
			return fmt.Errorf("set %s of a FUSE mount: %w", o[0], err)
		}
	}
	if err := unix.FsconfigSetFlag(config, "allow_other"); err != nil {
		return fmt.Errorf("set allow_other of a FUSE mount: %w", err)
	}
	if err := unix.FsconfigCreate(config); err != nil {
		return fmt.Errorf("create a FUSE mount: %w", err)
	}
	mount, err := unix.Fsmount(config, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID)
	if err != nil {
		return os.NewSyscallError("fsmount", err)
	}
	return unix.Close(mount)
}
