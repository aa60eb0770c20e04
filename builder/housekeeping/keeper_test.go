package housekeeping

import (
	"testing"
	"time"

	"github.com/optbuild/optbuild/builder/engine"
	"github.com/optbuild/optbuild/cache"
)

// TestNotes: nothing is measured while the cache can't have come near its limit.
func TestNotes(t *testing.T) {
	const gb = 1_000_000_000
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	limit := cache.Limit{Bytes: 8 * gb, Records: 1000}
	good := notes{At: now.Add(-time.Minute), Bytes: 3 * gb, Records: 10, Free: 100 * gb}
	change := func(f func(*notes)) notes {
		n := good
		f(&n)
		return n
	}
	for _, c := range []struct {
		name  string
		notes notes
		free  int64
		grown engine.Growth
		want  bool
	}{
		{"nothing changed", good, 100 * gb, engine.Growth{}, true},
		{"the disk lost a little", good, 100*gb - gb/4, engine.Growth{}, true},
		{"the disk lost much, nobody knows what for", good, 98 * gb, engine.Growth{}, false},
		{"the disk lost what was added", good, 98 * gb, engine.Growth{Bytes: 2 * gb, Things: 3}, true},
		{"others freed what was added", good, 100 * gb, engine.Growth{Bytes: 2 * gb, Things: 3}, true},
		{"so much was added that the limit is near", good, 95 * gb, engine.Growth{Bytes: 5 * gb, Things: 3}, false},
		{"the same, and others freed it", good, 100 * gb, engine.Growth{Bytes: 5 * gb, Things: 3}, false},
		{"more was lost than was added, a little", good, 98*gb - gb/4, engine.Growth{Bytes: 2 * gb}, true},
		{"more was lost than was added, and the limit is near", change(func(n *notes) { n.Bytes = 7 * gb }), 99*gb + 3*gb/4, engine.Growth{Bytes: gb / 2}, false},
		{"the disk is nearly full", good, 9 * gb, engine.Growth{}, false},
		{"near the limit", change(func(n *notes) { n.Bytes = 8*gb - gb/4 }), 100 * gb, engine.Growth{}, false},
		{"too many records", change(func(n *notes) { n.Records = 1001 }), 100 * gb, engine.Growth{}, false},
		{"too many records were added", good, 100 * gb, engine.Growth{Things: 991}, false},
		{"long ago", change(func(n *notes) { n.At = now.Add(-2 * time.Hour) }), 100 * gb, engine.Growth{}, false},
		{"from the future", change(func(n *notes) { n.At = now.Add(time.Hour) }), 100 * gb, engine.Growth{}, false},
		{"none", notes{}, 100 * gb, engine.Growth{}, false},
	} {
		d := cache.Disk{Total: 200 * gb, Free: c.free}
		if got := c.notes.recent(now, d) && c.notes.below(d, limit, c.grown); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
