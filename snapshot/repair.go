package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Repair looks at the directories of a snapshotter that ended without having put things in order, and that is not open. It gives
// discard what belongs to no snapshot, and returns the keys of the snapshots whose files are there. recorded are the keys of
// all snapshots, by number.
//
// All snapshotters keep a snapshot in snapshots/N. Only in those of Layers is anything looked at: with the native one, an image's
// own files begin there.
func Repair(root string, layers bool, recorded map[string]string, discard func(path string) error) (present map[string]bool, err error) {
	present = map[string]bool{}
	used := map[string]bool{}
	remove := func(path string) error {
		if err := discard(path); err != nil {
			return fmt.Errorf("remove directory without a snapshot: %w", err)
		}
		return nil
	}
	dirs, err := list(filepath.Join(root, snapshotsDir))
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		key, ok := recorded[filepath.Base(dir)]
		if !ok {
			if err := remove(dir); err != nil {
				return nil, err
			}
			continue
		}
		present[key] = true
		if !layers {
			continue
		}
		// What is left of an alias that was half made: the link that was not in its place yet, or what was there before.
		aside := filepath.Join(dir, aliasName)
		if _, err := os.Lstat(aside); err == nil {
			if err := remove(aside); err != nil {
				return nil, err
			}
		}
		if id := whole(root, filepath.Base(dir)); id == missing {
			delete(present, key)
		} else {
			used[id] = true
		}
	}
	shared, err := list(filepath.Join(root, sharedDir))
	if err != nil {
		return nil, err
	}
	for _, layer := range shared {
		if !used[filepath.Base(layer)] {
			if err := remove(layer); err != nil {
				return nil, err
			}
		}
	}
	return present, nil
}

// missing stands for the layer of a link that leads nowhere.
const missing = "/"

// whole returns the shared layer of an alias, empty if the snapshot is none.
func whole(root, number string) (id string) {
	if remoteBy(filepath.Join(root, snapshotsDir, number, filesDir)) != "" {
		if _, err := os.Lstat(filepath.Join(root, snapshotsDir, number, remoteNote)); err != nil {
			return missing
		}
		return "" // it is mounted again when it is needed
	}
	id, err := sharedBy(filepath.Join(root, snapshotsDir, number, filesDir))
	if errors.Is(err, fs.ErrNotExist) || err == nil && id == "" {
		return ""
	}
	if fi, errFiles := os.Lstat(filepath.Join(root, sharedDir, id, filesDir)); err != nil || errFiles != nil || !fi.IsDir() {
		return missing
	}
	return id
}

// list returns the paths of what is in a directory, which need not exist.
func list(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	paths := make([]string, len(entries))
	for i, e := range entries {
		paths[i] = filepath.Join(dir, e.Name())
	}
	return paths, err
}
