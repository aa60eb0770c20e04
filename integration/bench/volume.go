package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// leastVolume is what a file system for the bench must have room for, in bytes.
const leastVolume = 2 * wanted

// mountVolume mounts a new ext4 in a file at dir, so that what is measured does not depend on what was written to the machine's file system before, and on what others delete from it (see
// discard). The file is beside dir; unmount takes it
// away, as soon as nothing is open there.
func mountVolume(dir string) (unmount func() error, err error) {
	free, err := freeBytes(dir)
	if err != nil {
		return nil, err
	}
	size := min(free/10*8, 96<<30)
	if size < leastVolume {
		return nil, fmt.Errorf("%d GB are free, %d are needed", free>>30, leastVolume*10/8>>30)
	}
	image := dir + ".ext4"
	f, err := os.OpenFile(image, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(image))
		}
	}()
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return nil, err
	}
	// Whatever ext4 leaves for later would be done while something is measured.
	if _, err := output("mkfs.ext4", "-q", "-F", "-i", "32768", "-E", "lazy_itable_init=0,lazy_journal_init=0", image); err != nil {
		return nil, err
	}
	device, err := output("losetup", "--find", "--show", "--direct-io=on", image)
	if err != nil {
		return nil, err
	}
	detach := func() error {
		_, err := output("losetup", "--detach", device)
		return err
	}
	if err := unix.Mount(device, dir, "ext4", 0, ""); err != nil {
		return nil, errors.Join(fmt.Errorf("mount %s: %w", device, err), detach())
	}
	return func() error { return errors.Join(unix.Unmount(dir, unix.MNT_DETACH), detach(), os.Remove(image)) }, nil
}
