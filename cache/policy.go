package cache

import (
	"cmp"
	"slices"
	"time"
)

// Limit is what a cache may take.
type Limit struct {
	// Bytes is the most that the cache may take on disk, images of the local store included.
	Bytes int64 `json:"bytes"`
	// Records is the most records that it may have: an engine reads all of them when it starts.
	Records int `json:"records"`
}

// Disk is the file system that a cache is on.
type Disk struct {
	Total int64
	Free  int64 // what this user may still write
	// Inodes and FreeInodes count files; 0 where the file system has no limit.
	Inodes, FreeInodes int64
}

func (d Disk) shortOfInodes() bool { return d.FreeInodes < d.Inodes/reserveShare }

const (
	gigabyte = 1_000_000_000

	// MaxRecords bounds the records. Start-up grows by 36 µs for each (measured): 20,000 cost 0.7 s.
	MaxRecords = 20_000

	defaultShare = 5              // a fifth of the disk, but
	defaultMost  = 100 * gigabyte // more than this saves nobody a build, and
	defaultLeast = 10 * gigabyte  // with less than this a few base images push each other out

	// reserveShare of the disk, and no more than reserveMost, stays free whatever the limit: disks that are fuller are
	// slow, and break other programs first.
	reserveShare = 20
	reserveMost  = 20 * gigabyte
	// keepShare of the disk is the cache's even when others have filled the rest.
	keepShare = 20
)

// DefaultLimit is the limit for who did not choose one.
func DefaultLimit(d Disk) Limit {
	return Limit{Bytes: max(min(d.Total/defaultShare, defaultMost), defaultLeast), Records: MaxRecords}
}

// reserve is what should stay free on the disk.
func reserve(d Disk) int64 { return min(d.Total/reserveShare, reserveMost) }

// Short reports whether so little is free on the disk that a build should not start before some of the cache went.
func Short(d Disk) bool { return d.Free < reserve(d) || d.shortOfInodes() }

// On is the limit for a cache that takes used bytes of a disk: less than the limit itself when the disk is nearly full.
func (l Limit) On(d Disk, used int64) Limit {
	room := used + d.Free - reserve(d)
	if d.shortOfInodes() {
		room = min(room, used-used/10) // how many files a record has is not known: a tenth at a time
	}
	l.Bytes = min(l.Bytes, max(room, d.Total/keepShare))
	return l
}

// target is where a collection that has to start ends: a little below the limit, so that not every build has to collect.
func (l Limit) target() Limit {
	return Limit{Bytes: l.Bytes - l.Bytes/20, Records: l.Records - l.Records/20}
}

// Exceeded reports whether a cache of that many bytes and records is above the limit.
func (l Limit) Exceeded(bytes int64, records int) bool {
	return bytes > l.Bytes || l.Records > 0 && records > l.Records
}

// FarExceeded reports whether a cache is so far above the limit that a collection is worth waiting for.
func (l Limit) FarExceeded(bytes int64, records int) bool {
	l.Bytes += l.Bytes / 50
	l.Records += l.Records / 50
	return l.Exceeded(bytes, records)
}

// Cutoff returns the moment such that removing what was last used at or before it brings a cache of that many bytes
// below the limit, and how many records that removes; 0 means that nothing can go. At most most records are named at once:
// their bytes are an estimate, so the caller measures again and comes back.
//
// A record can't go before those that build on it, so it counts as used when the last of them was.
func Cutoff(l Limit, bytes int64, records []Record, most int) (cutoff time.Time, n int) {
	if !l.Exceeded(bytes, len(records)) {
		return time.Time{}, 0
	}
	l = l.target()
	last := lastUses(records)
	free := slices.DeleteFunc(slices.Clone(records), func(r Record) bool { _, ok := last[r.ID]; return !ok })
	slices.SortFunc(free, func(a, b Record) int {
		return cmp.Or(last[a.ID].Compare(last[b.ID]), cmp.Compare(a.ID, b.ID))
	})
	left := len(records)
	for i, r := range free {
		same := i > 0 && last[r.ID].Equal(cutoff) // goes with the one before anyway
		if !same && (n >= most || !l.Exceeded(bytes, left)) {
			break
		}
		cutoff, n, left, bytes = last[r.ID], n+1, left-1, bytes-(r.Bytes-r.HeldBytes)
	}
	return cutoff, n
}

// lastUses returns for each record that can be removed, after those that build on it, when it or the last of those was
// used.
func lastUses(records []Record) map[string]time.Time {
	byID := make(map[string]Record, len(records))
	children := map[string][]string{}
	for _, r := range records {
		byID[r.ID] = r
		for _, p := range r.Parents {
			children[p] = append(children[p], r.ID)
		}
	}
	type use struct {
		last       time.Time
		free, done bool
	}
	uses := make(map[string]*use, len(records))
	var visit func(id string) *use
	visit = func(id string) *use {
		if u, ok := uses[id]; ok {
			return u
		}
		u := &use{last: byID[id].LastUsed, free: !byID[id].InUse}
		uses[id] = u
		for _, c := range children[id] {
			cu := visit(c)
			u.free = u.free && cu.free && cu.done // not done: a cycle, which only a damaged listing has
			if cu.last.After(u.last) {
				u.last = cu.last
			}
		}
		u.done = true
		return u
	}
	for id := range byID {
		visit(id)
	}
	out := make(map[string]time.Time, len(uses))
	for id, u := range uses {
		if u.free {
			out[id] = u.last
		}
	}
	return out
}
