package housekeeping

import (
	"testing"
	"time"

	"github.com/optbuild/optbuild/cache"
)

func TestFreshNotes(t *testing.T) {
	const gb = 1_000_000_000
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	limit := cache.Limit{Bytes: 8 * gb, Records: 1000}
	good := notes{At: now.Add(-time.Minute), Bytes: 3 * gb, Records: 10, Free: 100 * gb, Listing: 7}
	change := func(f func(*notes)) notes {
		n := good
		f(&n)
		return n
	}
	for _, c := range []struct {
		name  string
		notes notes
		free  int64
		want  bool
	}{
		{"nothing changed", good, 100 * gb, true},
		{"the disk lost a little", good, 100*gb - gb/4, true},
		{"the disk lost much", good, 98 * gb, false},
		{"the disk is nearly full", good, 9 * gb, false},
		{"something was added", change(func(n *notes) { n.Listing = 8 }), 100 * gb, false},
		{"near the limit", change(func(n *notes) { n.Bytes = 8*gb - gb/4 }), 100 * gb, false},
		{"too many records", change(func(n *notes) { n.Records = 1001 }), 100 * gb, false},
		{"long ago", change(func(n *notes) { n.At = now.Add(-2 * time.Hour) }), 100 * gb, false},
		{"from the future", change(func(n *notes) { n.At = now.Add(time.Hour) }), 100 * gb, false},
		{"none", notes{}, 100 * gb, false},
	} {
		if got := c.notes.fresh(now, cache.Disk{Total: 200 * gb, Free: c.free}, limit, 7); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
