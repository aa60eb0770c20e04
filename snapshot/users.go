package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
)

// readUsers reads from the disk which snapshots refer to which shared layers, the first time that it is asked. mu is held.
// Directories of snapshots that were removed don't count: their files are as good as gone.
func (l *Layers) readUsers(ctx context.Context) error {
	if l.users != nil {
		return nil
	}
	recorded, err := l.recorded(ctx)
	if err != nil {
		return err
	}
	users := map[string]map[uint64]bool{}
	for number := range recorded {
		id, err := sharedBy(l.own(number))
		if errors.Is(err, fs.ErrNotExist) || errdefs.IsFailedPrecondition(err) { // being made; damaged, as its mounts will say
			continue
		}
		if err != nil {
			return err
		}
		if id != "" {
			add(users, id, number)
		}
	}
	l.users = users
	return nil
}

// recorded returns the keys of all snapshots by their numbers.
func (l *Layers) recorded(ctx context.Context) (keys map[string]string, err error) {
	err = l.records.WithTransaction(ctx, false, func(ctx context.Context) (err error) {
		keys, err = storage.IDMap(ctx)
		return err
	})
	if err != nil && !errdefs.IsNotFound(err) { // no snapshot was ever made
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	return keys, nil
}

// use notes that a snapshot refers to a shared layer. mu is held, and readUsers was called.
func (l *Layers) use(id, number string) { add(l.users, id, number) }

func add(users map[string]map[uint64]bool, id, number string) {
	if users[id] == nil {
		users[id] = map[uint64]bool{}
	}
	n, _ := strconv.ParseUint(number, 10, 64)
	users[id][n] = true
}

// forget notes that a snapshot was removed. mu is held.
func (l *Layers) forget(number string) {
	n, _ := strconv.ParseUint(number, 10, 64)
	for id, numbers := range l.users {
		delete(numbers, n)
		if len(numbers) == 0 {
			delete(l.users, id)
		}
	}
}

// Cleanup deletes the directories of snapshots that were removed, and the shared layers that no snapshot refers to. What a
// process that was killed left of either goes, too.
func (l *Layers) Cleanup(ctx context.Context) error {
	unused, err := l.setAside(ctx)
	if err != nil {
		return err
	}
	for _, path := range unused {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove shared layer: %w", err)
		}
	}
	if l.cleaner == nil {
		return nil
	}
	if err := l.cleaner.Cleanup(ctx); !errdefs.IsNotFound(err) { // no snapshot was ever made
		return err
	}
	return nil
}

// setAside takes the shared layers that nothing refers to out of the way: deleting many files takes long, and nobody may find
// such a layer meanwhile. They become directories of snapshots that don't exist, which every Cleanup deletes.
func (l *Layers) setAside(ctx context.Context) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(l.root, sharedDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list shared layers: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.readUsers(ctx); err != nil {
		return nil, err
	}
	var unused []string
	for _, e := range entries {
		if len(l.users[e.Name()]) > 0 {
			continue
		}
		to, err := os.MkdirTemp(filepath.Join(l.root, snapshotsDir), "unused-")
		if err != nil {
			return unused, fmt.Errorf("remove shared layer: %w", err)
		}
		unused = append(unused, to)
		delete(l.usages, e.Name())
		err = os.Rename(l.SharedPath(e.Name()), filepath.Join(to, "layer"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // another Cleanup was faster
			return unused, fmt.Errorf("remove shared layer: %w", err)
		}
	}
	return unused, nil
}
