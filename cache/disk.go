package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// DiskOf describes the file system that dir is on.
func DiskOf(dir string) (Disk, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Disk{}, fmt.Errorf("examine the disk of %s: %w", dir, err)
	}
	block := int64(st.Bsize)
	return Disk{
		Total: int64(st.Blocks) * block, Free: int64(st.Bavail) * block, Inodes: int64(st.Files), FreeInodes: int64(st.Ffree),
	}, nil
}

// blockUnit is the unit of st_blocks, whatever the file system's block size is (stat(2)).
const blockUnit = 512

// Du calls add with the allocated bytes of each file and directory at and below dir, as `du -x` counts them: a file with
// several links once, and nothing of other file systems that are mounted there. What is in directories for which skip (if any) is true is left out. What vanishes meanwhile counts as
// nothing, what can't be read is an error.
func Du(dir string, skip func(path string) bool, add func(path string, bytes int64)) error {
	type inode struct{ dev, ino uint64 }
	seen := map[inode]struct{}{}
	var own uint64 // the device of dir
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil {
			var fi fs.FileInfo
			if fi, err = e.Info(); err == nil {
				st := fi.Sys().(*syscall.Stat_t)
				switch {
				case path == dir:
					own = uint64(st.Dev)
				case uint64(st.Dev) != own && e.IsDir():
					return fs.SkipDir
				case uint64(st.Dev) != own:
					return nil
				}
				if st.Nlink > 1 && !e.IsDir() {
					i := inode{uint64(st.Dev), st.Ino}
					if _, ok := seen[i]; ok {
						return nil
					}
					seen[i] = struct{}{}
				}
				add(path, int64(st.Blocks)*blockUnit)
				if e.IsDir() && skip != nil && skip(path) {
					return fs.SkipDir
				}
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}
