package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// wanted is what must be free for a build to come, in bytes.
	wanted = 12 << 30
	// forgotten is how long ext4 remembers which inodes were freed, when what says so is on the disk (RECENTCY_MIN in fs/ext4/ialloc.c).
	forgotten = 60 * time.Second
)

// discard empties the place of a directory, of which nothing need be there. The files are deleted where no build has to pay for it: at the end, or when the disk gets full.
//
// ext4 gives no inode out again soon after it was freed, and goes through all of these, one by one, for each new file. A builder that unpacks 10,000 files right after as many were
// deleted was seen to spend two thirds of its processor time with that.
func (b *bench) discard(ctx context.Context, dir string) error {
	aside := filepath.Join(b.Dir, "discarded")
	if err := os.MkdirAll(aside, 0o700); err != nil {
		return err
	}
	err := os.Rename(dir, filepath.Join(aside, b.next("")))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	free, err := freeBytes(b.Dir)
	if err != nil || free >= wanted {
		return err
	}
	fmt.Fprintf(os.Stderr, "  deletes what was discarded, and waits for %v\n", forgotten)
	if err := os.RemoveAll(aside); err != nil {
		return err
	}
	unix.Sync()
	select {
	case <-time.After(forgotten):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func freeBytes(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(s.Bavail) * s.Bsize, nil
}
