package snapshot

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
)

// TestConcurrent: builds share and take up layers and remove what they made while another cleans up and a third measures. A
// layer that somebody has got hold of stays whole.
func TestConcurrent(t *testing.T) {
	l := open(t, t.TempDir())
	ctx := t.Context()
	const builds, rounds, layers = 4, 60, 3
	var wg, background sync.WaitGroup
	ended := make(chan struct{})
	for _, f := range []func(context.Context) error{l.Cleanup, func(ctx context.Context) error { _, err := l.Aliases(ctx); return err }} {
		background.Go(func() {
			for {
				if err := f(ctx); err != nil {
					t.Errorf("in the background: %v", err)
					return
				}
				select {
				case <-ended:
					return
				default:
				}
			}
		})
	}
	var replayed atomic.Int64
	for build := range builds {
		wg.Go(func() {
			for round := range rounds {
				key := fmt.Sprintf("step-%d-%d", build, round)
				if err := buildOnce(ctx, l, key, fmt.Sprintf("layer%d", round%layers), &replayed); err != nil {
					t.Errorf("%s: %v", key, err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(ended)
	background.Wait()
	t.Logf("%d of %d steps were replayed", replayed.Load(), builds*rounds)
	must(t, l.Cleanup(ctx))
	if left := names(t, l.root, "snapshots") + names(t, l.root, "shared"); left != "" {
		t.Errorf("left %s", left)
	}
}

// buildOnce makes a snapshot of the layer's files, by taking them up or by writing and sharing them, looks whether they are
// there and removes it.
func buildOnce(ctx context.Context, l *Layers, key, id string, replayed *atomic.Int64) error {
	var made Prepared
	if _, err := l.Prepare(WithPrepared(ctx, func(p Prepared) { made = p }), key, ""); err != nil {
		return err
	}
	switch err := l.Alias(ctx, key, id); {
	case err == nil:
		replayed.Add(1)
	case !errdefs.IsNotFound(err):
		return err
	default:
		if err := os.WriteFile(filepath.Join(made.Directory, "made"), []byte(id), 0o600); err != nil {
			return err
		}
		if err := l.Share(ctx, key, id); err != nil && !errdefs.IsAlreadyExists(err) { // another build was faster
			return err
		}
	}
	if err := l.Commit(ctx, key+"-done", key); err != nil {
		return err
	}
	chain, err := l.Chain(ctx, key+"-done")
	if err != nil {
		return err
	}
	if b, err := os.ReadFile(filepath.Join(chain[0].Path, "made")); err != nil || string(b) != id {
		return fmt.Errorf("has %q: %w", b, err)
	}
	if _, err := l.Usage(ctx, key+"-done"); err != nil {
		return err
	}
	return l.Remove(ctx, key+"-done")
}
