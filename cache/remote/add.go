package remote

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Refresh is by how much an entry must have aged before it is written again only because it was added again. So a build that adds nothing new writes nothing, once a day excepted,
// and what is used does not get old.
const Refresh = 24 * time.Hour

// Add adds entries to the scope that is written, to what is there, and returns when it is certain that they last: until a bound or somebody removes them. Their blobs must have
// been pushed. What does not fit into the bounds is dropped, the oldest first; if that is one of these entries, Warn is told. If all are there already, nothing is written.
//
// ErrReadOnly says that no scope is written, ErrBusy that it could not be made certain.
func (s *Store) Add(ctx context.Context, entries []Entry) error { return s.add(ctx, entries, nil) }

// AddThen is Add for those who can't wait: there is called once when the entries are in the index, or when Add returns an error or nil before. What it takes until it is certain that they stay
// is then left, some seconds: if another writer has overwritten them at the same moment, they are added again.
func (s *Store) AddThen(ctx context.Context, entries []Entry, there func()) error {
	there = sync.OnceFunc(there)
	defer there()
	return s.add(ctx, entries, there)
}

func (s *Store) add(ctx context.Context, entries []Entry, there func()) error {
	if s.o.Write == "" {
		return ErrReadOnly
	}
	mine := union(identify(entries))
	now := time.Now().UTC().Truncate(time.Second)
	for i := range mine {
		if mine[i].Created.After(now) || mine[i].Created.IsZero() {
			mine[i].Created = now
		}
		if err := mine[i].check(); err != nil {
			return fmt.Errorf("add %s entry: %w", clip(mine[i].Kind), err)
		}
	}
	if len(mine) == 0 {
		return nil
	}
	if err := s.writable(); err != nil {
		return err
	}
	want := func(current []identified) ([]identified, bool) {
		return s.merge(mine, current)
	}
	if err := s.change(ctx, s.o.Write, want, there); err != nil {
		return fmt.Errorf("add to cache %s: %w", s.name(), err)
	}
	return nil
}

// writable says why what is written could not be read again.
func (s *Store) writable() error {
	if len(s.o.TrustedKeys) > 0 && s.o.SigningKey == nil {
		return fmt.Errorf("write cache %s: only signed indexes are trusted, and there is no key to sign with", s.name())
	}
	return nil
}

// merge adds entries to those that are there. It tells whether they are all there already, but for those that the bounds drop.
func (s *Store) merge(mine, current []identified) ([]identified, bool) {
	now := time.Now()
	all := union(mine, consistent(mine, current))
	bounded := s.o.Bounds.apply(all, now)
	there, stays := byID(current), byID(bounded)
	done := true
	for _, e := range mine {
		if _, ok := stays[e.id]; !ok {
			s.warn(s.o.Write, "%s %s (%d bytes) does not fit into its bounds: it is not kept", e.Kind, clip(e.Key), e.Blob.Size)
			continue
		}
		if old, ok := there[e.id]; !ok || e.Created.Sub(old.Created) > Refresh {
			done = false
		}
	}
	return bounded, done
}

// consistent leaves out entries that say of a blob that it has another size than mine do: an index that has both is no good.
func consistent(mine, others []identified) []identified {
	sizes := map[digest.Digest]int64{}
	for _, d := range blobs(mine) {
		sizes[d.Digest] = d.Size
	}
	return slices.DeleteFunc(slices.Clone(others), func(e identified) bool {
		for _, d := range append(slices.Clip(e.Holds), e.Blob) {
			if size, ok := sizes[d.Digest]; ok && size != d.Size {
				return true
			}
		}
		return false
	})
}

func byID(entries []identified) map[string]identified {
	m := make(map[string]identified, len(entries))
	for _, e := range entries {
		m[e.id] = e
	}
	return m
}

// Change is what was changed in a scope.
type Change struct {
	Removed []Entry
	// BeforeBytes and AfterBytes are the sums of the sizes of the distinct blobs.
	BeforeBytes, AfterBytes int64
	Kept                    int // entries
}

// Collect removes from a scope what rules do not let it keep. Beside other writers it removes nothing that they add.
func (s *Store) Collect(ctx context.Context, scope string, rules Bounds) (Change, error) {
	return s.reduce(ctx, scope, func(current []identified) []identified { return rules.apply(current, time.Now()) })
}

// Remove removes the entries of a scope for which drop is true. It is called again when others write at the same time.
func (s *Store) Remove(ctx context.Context, scope string, drop func(Entry) bool) (Change, error) {
	return s.reduce(ctx, scope, func(current []identified) []identified {
		return slices.DeleteFunc(slices.Clone(current), func(e identified) bool { return drop(e.Entry) })
	})
}

func (s *Store) reduce(ctx context.Context, scope string, rest func([]identified) []identified) (Change, error) {
	if err := s.writable(); err != nil {
		return Change{}, err
	}
	var c Change
	removed := map[string]identified{}
	want := func(current []identified) ([]identified, bool) {
		stay := rest(current)
		if c.BeforeBytes == 0 {
			c.BeforeBytes = sumBytes(current)
		}
		c.AfterBytes, c.Kept = sumBytes(stay), len(stay)
		kept := byID(stay)
		for _, e := range current {
			if _, ok := kept[e.id]; !ok {
				removed[e.id] = e
			}
		}
		return stay, len(stay) == len(current)
	}
	if err := s.change(ctx, scope, want, nil); err != nil {
		return Change{}, fmt.Errorf("collect in cache %s: %w", s.name(), err)
	}
	list := slices.SortedFunc(maps.Values(removed), newestFirst)
	for _, e := range list {
		e.Scope = scope
		c.Removed = append(c.Removed, e.Entry)
	}
	return c, nil
}
