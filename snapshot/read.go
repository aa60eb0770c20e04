package snapshot

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// contextName is the name, beside a layer's files, of what says that its step has read files of a build context.
const contextName = "context-read"

// SetContextRead notes, beside the directory of a layer's files, that the step that made them has read files of a build context.
func SetContextRead(dir string) error {
	return os.WriteFile(filepath.Join(filepath.Dir(dir), contextName), nil, 0o600)
}

// ContextRead tells whether that was noted. Of a layer that was made without being watched nothing is.
func ContextRead(dir string) (bool, error) {
	_, err := os.Lstat(filepath.Join(filepath.Dir(dir), contextName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
