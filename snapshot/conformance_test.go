package snapshot

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	_ "github.com/containerd/containerd/v2/pkg/testutil" // has the flag -test.root, which the suite needs
)

// TestConformance runs containerd's suite for snapshotters: as Layers is, and with every snapshot becoming an alias as soon as it
// is committed.
func TestConformance(t *testing.T) {
	needRoot(t)
	t.Run("plain", func(t *testing.T) {
		testsuite.SnapshotterSuite(t, "overlayfs", func(_ context.Context, root string) (snapshots.Snapshotter, func() error, error) {
			s, err := newOverlay(root)
			if err != nil {
				return nil, nil, err
			}
			return s, s.Close, nil
		})
	})
	t.Run("shared", func(t *testing.T) {
		testsuite.SnapshotterSuite(t, "overlayfs", func(_ context.Context, root string) (snapshots.Snapshotter, func() error, error) {
			s, err := newOverlay(root)
			if err != nil {
				return nil, nil, err
			}
			return &sharing{Layers: s.(*Layers)}, s.Close, nil
		})
	})
}

// sharing shares everything.
type sharing struct {
	*Layers
	last atomic.Int64
}

func (s *sharing) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	if err := s.Layers.Commit(ctx, name, key, opts...); err != nil {
		return err
	}
	return s.Share(ctx, name, fmt.Sprintf("layer%d", s.last.Add(1)))
}

// needRoot skips what mounts when it can't.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		skip(t, "mounting an overlay takes root")
	}
}

// skip says why on standard error: the reason is not to be seen otherwise.
func skip(t testing.TB, reason string) {
	t.Helper()
	fmt.Fprintf(os.Stderr, "skipped: %s: %s\n", t.Name(), reason)
	t.Skip(reason)
}
