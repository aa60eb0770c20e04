package sharing

import (
	"context"
	"path"
	"slices"

	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/progress"

	"github.com/optbuild/optbuild/builder/engine/mounts"
	"github.com/optbuild/optbuild/cache/remote"
)

// Mounts returns what the builds of a step want of its cache mounts.
func (c *Caches) Mounts(g session.Group) (list []*mounts.Build) {
	for _, b := range c.of(session.AllSessionIDs(g), false) {
		b.mu.Lock()
		if b.mounts != nil {
			list = append(list, b.mounts)
		}
		b.mu.Unlock()
	}
	return list
}

// HasMounts is true if there is an archive for each key, which a step that needs the mount would be given.
func (c *Caches) HasMounts(sessions []string, keys []mounts.Key) bool {
	return !slices.ContainsFunc(keys, func(key mounts.Key) bool {
		return !slices.ContainsFunc(c.of(sessions, false), func(b *build) bool {
			b.mu.Lock()
			m := b.mounts
			b.mu.Unlock()
			return m != nil && m.Travels(key) && b.has(mounts.Kind, key.Sum)
		})
	})
}

// travel lets the cache mounts of builds travel by a shared cache, unless its options forbid that.
func (c *Caches) travel(builds []*build, s *store) {
	o := s.options
	if o.MountsOff || c.Keeper == nil {
		return
	}
	for _, b := range builds {
		b.mu.Lock()
		if b.mounts == nil {
			b.mounts = &mounts.Build{
				Source: &mounts.Remote{Readings: b.mountReadings}, TotalBytes: o.MaxBytes, MaxAge: o.MaxAge,
				Warn: s.warn, Off: stays(o.Stay),
			}
		}
		b.mu.Unlock()
	}
}

// stays tells of the id of a mount whether it is one of those that do not travel.
func stays(ids []string) func(id string) bool {
	return func(id string) bool {
		return slices.ContainsFunc(ids, func(stay string) bool { return path.Clean(stay) == path.Clean(id) })
	}
}

func (b *build) mountReadings() (list []mounts.Reading) {
	for _, r := range b.readings() {
		list = append(list, mounts.Reading{Store: r.store.Store, Index: r.index})
	}
	return list
}

// mountEntries saves the cache mounts that the builds have used. The image and everything else of the cache are out by then.
func (e *exporter) mountEntries(ctx context.Context) (entries []remote.Entry, err error) {
	for _, b := range e.builds {
		b.mu.Lock()
		m := b.mounts
		b.mu.Unlock()
		if m == nil || !m.Used() {
			continue
		}
		done := progress.OneOff(ctx, "sending cache mounts")
		to := &mounts.Remote{Readings: b.mountReadings, Write: e.store.Store, Collect: func(list []remote.Entry) { entries = append(entries, list...) }}
		if err := done(e.caches.Keeper.Save(ctx, m, to)); err != nil {
			return entries, err
		}
	}
	return entries, nil
}
