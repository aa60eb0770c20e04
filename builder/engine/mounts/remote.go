package mounts

import (
	"context"
	"errors"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/optbuild/optbuild/cache/remote"
)

// Kind is that of the entries of a shared cache that are archives: the key is [mount.key], the blob a manifest, held are its packs.
const Kind = "mount"

// Reading is an index of a shared cache, as it was read.
type Reading struct {
	Store *remote.Store
	Index *remote.Index
}

// Remote is a [Store] that keeps archives at registries. It is used by one goroutine at a time, but for reading.
type Remote struct {
	// Readings are asked in their order: the first that has a key counts.
	Readings func() []Reading
	// Write takes what is added. Nil: only a [Source] is needed.
	Write *remote.Store
	// Collect takes the entries in place of Write, for a caller who has more to add. May be nil.
	Collect func([]remote.Entry)

	sent []remote.Entry
}

var _ Store = (*Remote)(nil)

// Find looks an archive up in what was read.
func (r *Remote) Find(_ context.Context, key string) (Archive, bool, error) {
	for _, x := range r.Readings() {
		if list := x.Index.Find(Kind, key); len(list) > 0 {
			e := list[0]
			return Archive{Created: e.Created, Manifest: e.Blob, Holds: e.Holds, Note: e.Note}, true, nil
		}
	}
	return Archive{}, false, nil
}

// ReaderAt reads a blob where it is found first.
func (r *Remote) ReaderAt(ctx context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	errs := []error{errdefs.ErrNotFound}
	for _, x := range r.Readings() {
		ra, err := x.Store.Provider().ReaderAt(ctx, d)
		if err == nil {
			return ra, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// maxPushes is how many blobs are sent at a time.
const maxPushes = 4

// Send sends what the registry does not have. What an archive refers to may be at another registry, or may have been collected since.
func (r *Remote) Send(ctx context.Context, key string, a Archive, fresh content.Provider) error {
	isFresh := map[string]bool{}
	for _, d := range a.Fresh {
		isFresh[d.Digest.String()] = true
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(maxPushes)
	for _, d := range append([]ocispecs.Descriptor{a.Manifest}, a.Holds...) {
		from := content.Provider(r)
		if isFresh[d.Digest.String()] {
			from = fresh
		}
		g.Go(func() error { return r.Write.Push(gctx, d, from, nil) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	r.sent = append(r.sent, remote.Entry{Kind: Kind, Key: key, Created: a.Created, Blob: a.Manifest, Holds: a.Holds, Note: a.Note})
	return nil
}

// Commit adds the entries. All at once: changing an index takes seconds, so that no other writer loses anything.
func (r *Remote) Commit(ctx context.Context) error {
	if len(r.sent) == 0 {
		return nil
	}
	sent := r.sent
	r.sent = nil
	if r.Collect != nil {
		r.Collect(sent)
		return nil
	}
	return r.Write.Add(ctx, sent)
}
