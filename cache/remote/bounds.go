package remote

import (
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Bounds are how much a scope may keep. Zero values are the defaults, negative ones mean no bound.
type Bounds struct {
	MaxAge     time.Duration // since an entry was made, or added again: 30 days
	MaxBytes   int64         // sum of the sizes of all distinct blobs: 10 GiB
	MaxEntries int           // 2,000
	// KeepLast is how many entries of each kind stay, the newest, whatever the other bounds say. What a registry accepts bounds them nevertheless.
	KeepLast int
	// PerKey is, by kind, how many entries with one key stay, the newest, whatever else the bounds say; a kind that is not in it has no such bound.
	PerKey map[string]int
}

// Defaults of Bounds. An index is read whole by each build: 2,000 entries are a quarter of a megabyte (README.md).
const (
	defaultAge     = 30 * 24 * time.Hour
	defaultBytes   = 10 << 30
	defaultEntries = 2_000
)

// future is how far ahead of this machine's clock another one's may be. What is further ahead counts as old: it would stay for ever.
const future = 24 * time.Hour

func (b Bounds) orDefault() Bounds {
	if b.MaxAge == 0 {
		b.MaxAge = defaultAge
	}
	if b.MaxBytes == 0 {
		b.MaxBytes = defaultBytes
	}
	if b.MaxEntries == 0 {
		b.MaxEntries = defaultEntries
	}
	if b.MaxEntries < 0 || b.MaxEntries > maxEntries {
		b.MaxEntries = maxEntries
	}
	return b
}

// apply returns the entries that stay, in order. From the newest to the oldest, each stays that still fits: one that is larger than all of the bound does
// not push out everything that is older.
func (b Bounds) apply(entries []identified, now time.Time) []identified {
	b = b.orDefault()
	entries = slices.Clone(entries)
	slices.SortFunc(entries, func(x, y identified) int {
		switch fx, fy := x.Created.After(now.Add(future)), y.Created.After(now.Add(future)); {
		case fx && !fy:
			return 1
		case fy && !fx:
			return -1
		}
		return newestFirst(x, y)
	})
	var (
		stays = make([]bool, len(entries))
		sum   = load{held: map[digest.Digest]bool{}}
		kinds = map[string]int{}
	)
	entries = b.perKey(entries)
	for i, e := range entries {
		if kinds[e.Kind]++; kinds[e.Kind] > b.KeepLast {
			continue
		}
		if more := sum.with(e); more.readable() {
			sum.add(e, more)
			stays[i] = true
		}
	}
	for i, e := range entries {
		aged := now.Sub(e.Created)
		if stays[i] || sum.entries >= b.MaxEntries || b.MaxAge > 0 && (aged > b.MaxAge || aged < -future) {
			continue
		}
		if more := sum.with(e); more.readable() && (b.MaxBytes < 0 || more.bytes <= b.MaxBytes) {
			sum.add(e, more)
			stays[i] = true
		}
	}
	var out []identified
	for i, e := range entries {
		if stays[i] {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, newestFirst)
	return out
}

// perKey leaves out what newer entries of the same key have replaced.
func (b Bounds) perKey(entries []identified) []identified {
	type key struct{ kind, key string }
	seen := map[key]int{}
	return slices.DeleteFunc(entries, func(e identified) bool {
		most, bounded := b.PerKey[e.Kind]
		k := key{e.Kind, e.Key}
		seen[k]++
		return bounded && seen[k] > most
	})
}

// load is what some entries amount to.
type load struct {
	held    map[digest.Digest]bool // their distinct blobs
	bytes   int64                  // of these
	entries int
	refs    int
	blobs   int
	text    int // bytes of an index, about
}

// with returns what it is with one more entry; held stays as it is.
func (l load) with(e identified) load {
	l.entries++
	l.refs += len(e.Holds)
	l.text += 100 + len(e.Kind) + len(e.Key) + textOf(e.Note) + 8*len(e.Holds)
	own := map[digest.Digest]bool{}
	one := func(d ocispecs.Descriptor) {
		if l.held[d.Digest] || own[d.Digest] {
			return
		}
		own[d.Digest] = true
		l.bytes += d.Size
		l.blobs++
		l.text += 150 + len(d.MediaType) + textOf(d.Annotations)
	}
	one(e.Blob)
	for _, d := range e.Holds {
		one(d)
	}
	return l
}

// add makes l what with returned.
func (l *load) add(e identified, with load) {
	*l = with
	l.held[e.Blob.Digest] = true
	for _, d := range e.Holds {
		l.held[d.Digest] = true
	}
}

// readable tells whether an index may have so much. Of its text a quarter is allowed of what is when it is read, so that it also fits when it can't be compressed.
func (l load) readable() bool {
	return l.entries <= maxEntries && l.refs <= maxRefs && l.blobs <= maxBlobs/2 && l.text <= maxPlain/4
}

// textOf is how long a map is as JSON, at most.
func textOf(m map[string]string) (n int) {
	for k, v := range m {
		n += 6*len(k) + 6*len(v) + 6
	}
	return n
}

// sumBytes is what the distinct blobs of entries take.
func sumBytes(entries []identified) (n int64) {
	for _, d := range blobs(entries) {
		n += d.Size
	}
	return n
}
