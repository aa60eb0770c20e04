// Package atomicfile writes files that are there as a whole or not at all, also for those who read them meanwhile. Nothing is synced: it is for what can be made again.
package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Temporary is what the names of files begin with that do not have all of their bytes yet. A process that is killed leaves them.
const Temporary = ".tmp-"

// Write writes a file beside its place, and renames it.
func Write(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), Temporary)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
