package trace

import (
	"cmp"
	"slices"
)

// moment is when a file was modified: as the run saw it, and today.
type moment struct {
	layer  int
	path   string
	was    int64
	is     int64
	counts bool
}

// orderOfTime returns a pair of files of which one was older than the other, or as old, and is not any more; nil if there is
// none. Programs such as make and byte code caches do not ask how old a file is, but which of two is older: times
// may all change if their order stays. The times of other layers do not change, and those of the stored run lie after Started, which
// BecameNewer looks after.
func orderOfTime(times []moment) *Difference {
	if !slices.ContainsFunc(times, func(m moment) bool { return m.counts && m.was != m.is }) {
		return nil
	}
	sorted := make([]moment, 0, len(times))
	for _, m := range times {
		if m.counts {
			sorted = append(sorted, m)
		}
	}
	slices.SortStableFunc(sorted, func(a, b moment) int { return cmp.Compare(a.was, b.was) })
	for i := 1; i < len(sorted); i++ {
		a, b := sorted[i-1], sorted[i]
		if cmp.Compare(a.was, b.was) == cmp.Compare(a.is, b.is) {
			continue
		}
		if b.was == b.is { // name the one that changed
			a, b = b, a
		}
		return &Difference{Layer: b.layer, Kind: OrderChanged, Path: b.path, Name: a.path}
	}
	return nil
}
