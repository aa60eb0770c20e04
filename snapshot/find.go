package snapshot

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"
)

// Key returns the key of the snapshot whose own directory of files, as mounts name it, is path.
func (l *Layers) Key(ctx context.Context, path string) (string, error) {
	number := filepath.Base(filepath.Dir(path))
	if l.own(number) != path {
		return "", fmt.Errorf("find snapshot of %s: it is no snapshot's directory: %w", path, errdefs.ErrNotFound)
	}
	keys, err := l.recorded(ctx)
	if err != nil {
		return "", err
	}
	key, ok := keys[number]
	if !ok {
		return "", fmt.Errorf("find snapshot of %s: %w", path, errdefs.ErrNotFound)
	}
	return key, nil
}

// Users returns the keys of the snapshots that are aliases of a shared layer, in no order.
func (l *Layers) Users(ctx context.Context, id string) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.readUsers(ctx); err != nil {
		return nil, err
	}
	all, err := l.recorded(ctx)
	if err != nil {
		return nil, err
	}
	var keys []string
	for number := range l.users[id] {
		if key, ok := all[strconv.FormatUint(number, 10)]; ok {
			keys = append(keys, key)
		}
	}
	return keys, nil
}
