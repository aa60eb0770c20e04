package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/snapshots"
	continuity "github.com/containerd/continuity/fs"
	"github.com/containerd/errdefs"
)

// Usage returns what a snapshot takes on the disk. A shared layer is charged to one of the snapshots that refer to it, and the
// others take nothing: the sum over all snapshots is what all of them take.
//
// It is charged to the youngest one. That one is usually the last to be removed, because what wasn't used for long is removed
// first, so that the charge rarely has to pass to another: who asked before (BuildKit never asks twice) keeps the old answer.
// And when he does, then he takes the cache for larger than it is, and removes what is old too early; with the oldest
// one charged he would take it for smaller, and it would outgrow its limit.
func (l *Layers) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	number, info, usage, err := l.info(ctx, key)
	if err != nil {
		return snapshots.Usage{}, fmt.Errorf("measure snapshot: %w", err)
	}
	if info.Kind == snapshots.KindView { // has no files
		return usage, nil
	}
	if info.Kind == snapshots.KindActive {
		if usage, err = l.inner.Usage(ctx, key); err != nil {
			return snapshots.Usage{}, err
		}
	}
	// Asked last: it may have become an alias while it was walked.
	d, err := l.directory(number)
	if err != nil {
		return snapshots.Usage{}, err
	}
	if d.Shared != "" {
		return l.sharedUsage(ctx, d)
	}
	return usage, nil
}

// sharedUsage returns what an alias is charged.
func (l *Layers) sharedUsage(ctx context.Context, d Directory) (snapshots.Usage, error) {
	charged, known, err := l.charged(ctx, d)
	if err != nil || !charged {
		return snapshots.Usage{}, err
	}
	if known != nil {
		return *known, nil
	}
	// Not while mu is held: it may take long. Who comes meanwhile counts again.
	u, err := continuity.DiskUsage(ctx, d.Path)
	if err != nil {
		return snapshots.Usage{}, fmt.Errorf("measure shared layer: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.setUsage(d.Shared, snapshots.Usage(u))
	return snapshots.Usage(u), nil
}

// charged says whether the alias is the one that is charged, and if so what, as far as that is known.
func (l *Layers) charged(ctx context.Context, d Directory) (bool, *snapshots.Usage, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.readUsers(ctx); err != nil {
		return false, nil, err
	}
	var youngest uint64
	for n := range l.users[d.Shared] {
		youngest = max(youngest, n)
	}
	if d.Number != fmt.Sprint(youngest) {
		return false, nil, nil
	}
	if u, ok := l.usages[d.Shared]; ok {
		return true, &u, nil
	}
	b, err := os.ReadFile(l.usageFile(d.Shared))
	if err != nil {
		return true, nil, nil
	}
	var u snapshots.Usage
	if _, err := fmt.Sscanf(string(b), usageFormat, &u.Size, &u.Inodes); err != nil {
		return true, nil, nil
	}
	l.usages[d.Shared] = u
	return true, &u, nil
}

// setUsage keeps what a shared layer takes, beside its files: it doesn't change. mu is held.
func (l *Layers) setUsage(id string, u snapshots.Usage) {
	if len(l.users[id]) == 0 { // removed meanwhile
		return
	}
	l.usages[id] = u
	tmp := l.usageFile(id) + ".new"
	err := os.WriteFile(tmp, fmt.Appendf(nil, usageFormat, u.Size, u.Inodes), 0o600)
	if err == nil {
		err = os.Rename(tmp, l.usageFile(id))
	}
	if err != nil { // the next process counts again
		_ = os.Remove(tmp)
	}
}

const usageFormat = "%d bytes %d inodes\n"

func (l *Layers) usageFile(id string) string {
	return filepath.Join(l.SharedPath(id), filesDir+"-usage")
}

// Aliases returns the keys of the snapshots that are aliases, with their Usage.
func (l *Layers) Aliases(ctx context.Context) (map[string]snapshots.Usage, error) {
	l.mu.Lock()
	err := l.readUsers(ctx)
	numbers := map[string]bool{}
	for _, users := range l.users {
		for n := range users {
			numbers[fmt.Sprint(n)] = true
		}
	}
	l.mu.Unlock()
	if err != nil || len(numbers) == 0 {
		return nil, err
	}
	recorded, err := l.recorded(ctx)
	if err != nil {
		return nil, err
	}
	aliases := make(map[string]snapshots.Usage, len(numbers))
	for number, key := range recorded {
		if !numbers[number] {
			continue
		}
		u, err := l.Usage(ctx, key)
		if errdefs.IsNotFound(err) || errors.Is(err, fs.ErrNotExist) { // removed meanwhile, and perhaps deleted
			continue
		}
		if err != nil {
			return nil, err
		}
		aliases[key] = u
	}
	return aliases, nil
}
