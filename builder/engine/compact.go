package engine

import (
	"errors"
	"os"

	bolt "go.etcd.io/bbolt"
)

// compactAbove is the size from which on a database that is mostly free pages is written anew: bolt files never shrink.
const compactAbove = 16 << 20

// compact writes a closed database anew when it has at least so many bytes and most of it is free.
func compact(path string, above int64) error {
	fi, err := os.Stat(path)
	if err != nil || fi.Size() < above {
		return nil
	}
	src, err := bolt.Open(path, 0o600, boltOptions())
	if err != nil {
		return err
	}
	defer src.Close()
	tx, err := src.Begin(true) // counts the free pages
	if err != nil {
		return err
	}
	used := tx.Size()
	if err := tx.Rollback(); err != nil {
		return err
	}
	if used -= int64(src.Stats().FreePageN) * int64(src.Info().PageSize); used > fi.Size()/2 {
		return nil
	}
	tmp := path + ".compact"
	defer os.Remove(tmp)
	dst, err := bolt.Open(tmp, 0o600, boltOptions())
	if err != nil {
		return err
	}
	err = errors.Join(bolt.Compact(dst, src, 1<<20), dst.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
