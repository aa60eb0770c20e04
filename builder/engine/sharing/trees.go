package sharing

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/moby/buildkit/session"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/builder/engine/lazy"
	"github.com/optbuild/optbuild/cache/remote"
)

// kindTree is the kind of entries that say what is where a file operation works.
const (
	kindTree      = "tree"
	mediaTypeTree = "application/vnd.optbuild.cache.tree.v1+zstd"
	maxTreeBytes  = 8 << 20
	maxTreePlain  = 64 << 20
)

// treeKey is the key of what is at a place of a file system, which the chain id of its layers stands for.
func treeKey(chain, place string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "optbuild tree 1\n%q\n%q\n", chain, place))
	return hex.EncodeToString(sum[:])
}

// worksAt is a place of a file operation.
type worksAt struct {
	below  string // the record that it works on
	places []string
}

var _ lazy.Elsewhere = (*Caches)(nil)

// Tree looks up what is at a place.
func (c *Caches) Tree(ctx context.Context, sessions []string, chain, place string) *lazy.Tree {
	for _, b := range c.of(sessions, false) {
		for _, r := range b.readings() {
			for _, e := range r.index.Find(kindTree, treeKey(chain, place)) {
				t, err := r.tree(ctx, e, place)
				if err == nil {
					b.uses(e)
					return t
				}
				if ctx.Err() == nil {
					logrus.WithError(err).Warn("shared cache: a list of names is not used")
				}
			}
		}
	}
	return nil
}

func (r reading) tree(ctx context.Context, e remote.Entry, place string) (*lazy.Tree, error) {
	z, err := r.store.Fetch(ctx, e.Blob, maxTreeBytes)
	if err != nil {
		return nil, err
	}
	plain, err := unpackJSON(z, maxTreePlain)
	if err != nil {
		return nil, err
	}
	t, err := lazy.DecodeTree(plain)
	if err == nil && t.Place != place {
		err = fmt.Errorf("it is of %q", t.Place)
	}
	return t, err
}

// Place notes where an operation worked, if a cache is going to be written.
func (c *Caches) Place(sessions []string, below string, places []string) {
	for _, b := range c.of(sessions, false) {
		b.mu.Lock()
		if b.writes {
			b.worked = append(b.worked, worksAt{below, places})
		}
		b.mu.Unlock()
	}
}

// trees makes entries of the places where file operations have worked.
func (e *exporter) trees(ctx context.Context) (entries []remote.Entry, err error) {
	for _, b := range e.builds {
		b.mu.Lock()
		worked := slices.Clone(b.worked)
		b.mu.Unlock()
		for _, w := range worked {
			list, err := e.treesOf(ctx, b, w)
			if err != nil {
				return nil, err
			}
			entries = append(entries, list...)
		}
	}
	return entries, nil
}

// treesOf makes entries of the places of one operation that nobody has passed on yet.
func (e *exporter) treesOf(ctx context.Context, b *build, w worksAt) (entries []remote.Entry, err error) {
	below, err := e.get(ctx, w.below)
	if err != nil {
		logrus.WithError(err).Debugf("what is at %q is not passed on", w.places) // pruned meanwhile, most likely
		return nil, nil
	}
	defer below.Release(context.WithoutCancel(ctx))
	chain := e.chain(below)
	if chain == "" {
		logrus.Debugf("what is at %q is not passed on: the layers have no digests", w.places)
		return nil, nil
	}
	for _, place := range w.places {
		key := treeKey(chain, place)
		if b.has(kindTree, key) {
			continue
		}
		var t *lazy.Tree
		err := lazy.OnFiles(ctx, below, true, e.session, func(dir string) (err error) {
			t, err = lazy.List(dir, place)
			return err
		})
		if errors.Is(err, lazy.ErrUnsure) {
			logrus.WithError(err).Debugf("what is at %s is not passed on", place)
			continue
		}
		if err != nil {
			return nil, err
		}
		entry, err := e.tree(ctx, key, t)
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

func (e *exporter) tree(ctx context.Context, key string, t *lazy.Tree) (entry remote.Entry, err error) {
	plain, err := t.Encode()
	if err != nil {
		return entry, err
	}
	z, err := pack(plain)
	if err != nil {
		return entry, err
	}
	blob, err := e.store.PushBytes(ctx, mediaTypeTree, z)
	return remote.Entry{Kind: kindTree, Key: key, Created: now(), Blob: blob, Note: map[string]string{"place": t.Place}}, err
}

// has is true if an index that the build has read has an entry.
func (b *build) has(kind, key string) bool {
	for _, r := range b.readings() {
		if len(r.index.Find(kind, key)) > 0 {
			return true
		}
	}
	return false
}

// Sum looks up what a small layer is known by.
func (c *Caches) Sum(sessions []string, diffID string) string {
	for _, b := range c.of(sessions, false) {
		b.mu.Lock()
		sum := b.sums[diffID]
		b.mu.Unlock()
		if sum != "" {
			return sum
		}
	}
	return ""
}

// AskedBy is true if any session of a group reads or writes a shared cache.
func (c *Caches) AskedBy(g session.Group) bool { return g != nil && c.Asked(session.AllSessionIDs(g)) }
