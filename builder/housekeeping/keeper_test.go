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
	good := notes{At: now.Add(-time.Minute), Bytes: 3 * gb, Records: 10, Free: 100 * gb}
	for _, c := range []struct {
		name  string
		notes notes
		free  int64
		want  bool
	}{
		{"well below", good, 100 * gb, true},
		{"the disk lost a little", good, 100*gb - gb/2, true},
		{"the disk lost much", good, 98 * gb, false},
		{"the disk is nearly full", good, 9 * gb, false},
		{"near the limit", notes{good.At, 7 * gb, 10, good.Free}, 100 * gb, false},
		{"many records", notes{good.At, 3 * gb, 900, good.Free}, 100 * gb, false},
		{"long ago", notes{now.Add(-2 * time.Hour), 3 * gb, 10, good.Free}, 100 * gb, false},
		{"from the future", notes{now.Add(time.Hour), 3 * gb, 10, good.Free}, 100 * gb, false},
		{"none", notes{}, 100 * gb, false},
	} {
		if got := c.notes.fresh(now, cache.Disk{Total: 200 * gb, Free: c.free}, limit); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
