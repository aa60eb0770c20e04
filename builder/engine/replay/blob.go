package replay

import (
	"cmp"
	"context"
	"errors"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/cache"
	cacheconfig "github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/bklog"
	"github.com/moby/buildkit/util/compression"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/builder/compress"
)

// A stored layer that was exported once has a blob. Its replay is a record of its own, an alias, and is given that blob, so that the layer is not compressed, and not pushed, a second time.
//
// BuildKit has no call for that. But when it computes the blob of a record it opens a writer in the content store, under the record's id, and where that fails it asks
// the differ. Both are wrapped here, and answer for one record in calls whose context says so (gift): there is no writer, and the difference is the stored layer's blob.
// All other records, and the same record in any other call, are computed as without us.

// gift is a blob for a record. It travels in the context of a call that computes the blobs of a chain of layers.
type gift struct {
	record string
	blob   ocispecs.Descriptor
	take   func(context.Context) error // keeps the blob for the lease of a context
	refuse atomic.Bool                 // it could not be kept: the record's blob is computed
	once   sync.Once
	taken  chan struct{} // closed when the blob was asked for
}

type giftKey struct{}

// giftFor returns the gift that a context has for a record, nil if there is none.
func giftFor(ctx context.Context, record string) *gift {
	if g, ok := ctx.Value(giftKey{}).(*gift); ok && g.record == record && !g.refuse.Load() {
		return g
	}
	return nil
}

// errGiven is why no writer is opened for a record that is given a blob.
var errGiven = errors.New("the blob of a stored layer is taken")

// rootRef is what a step writes to.
type rootRef struct {
	cache.MutableRef
	step *step
}

// ready fetches the layers below a step that have not been, for it is to be run.
func (st *step) ready(ctx context.Context) error {
	st.mu.Lock()
	d := st.deferred
	st.mu.Unlock()
	if d == nil {
		return nil
	}
	_, err := d.made(ctx)
	return err
}

func (r *rootRef) Commit(ctx context.Context) (cache.ImmutableRef, error) {
	r.step.mu.Lock()
	id, cm, s, instead := r.step.stored, r.step.cm, r.step.session, r.step.instead
	r.step.instead = nil
	r.step.mu.Unlock()
	if instead != nil {
		if err := r.MutableRef.Release(context.WithoutCancel(ctx)); err != nil {
			logrus.WithError(err).Warn("release what was not needed for a layer made elsewhere")
		}
		return instead, nil
	}
	ref, err := r.MutableRef.Commit(ctx)
	if err != nil {
		return nil, err
	}
	r.step.pass(ref)
	if id != "" {
		r.step.r.giveBlob(ctx, cm, s, ref, id)
	}
	return ref, nil
}

// giveBlob gives the record of a replay the blob of its stored layer, if there is one. It returns when that is under way, so that whoever computes the record's blob from then
// on waits for this one. What is below the record (the COPY that was made again) has to have a blob, too: that goes on in the background, while the next step runs.
func (r *Replayer) giveBlob(ctx context.Context, cm cache.Manager, s session.Group, ref cache.ImmutableRef, id string) {
	blob, err := r.blobOf(ctx, cm, id)
	if err != nil {
		logrus.WithError(err).Warn("look for the blob of a stored layer")
	}
	if blob.Digest == "" {
		return
	}
	g := &gift{record: ref.ID(), blob: blob, taken: make(chan struct{})}
	g.take = func(ctx context.Context) error { return r.keepBlob(ctx, blob.Digest) }
	ref = ref.Clone()
	ended := make(chan struct{})
	begun := r.start(func(ctx context.Context) {
		defer close(ended)
		defer func() {
			if err := ref.Release(context.WithoutCancel(ctx)); err != nil {
				logrus.WithError(err).Warn("release a replayed layer")
			}
		}()
		ctx = bklog.WithLogger(context.WithValue(ctx, giftKey{}, g), quiet)
		c := compress.Instead(compression.New(compression.Default), compress.Options{Cores: 1})
		if _, err := ref.GetRemotes(ctx, true, cacheconfig.RefConfig{Compression: c}, false, s); err != nil && ctx.Err() == nil {
			logrus.WithError(err).Warn("use the blob of a stored layer again")
		}
	})
	if !begun {
		_ = ref.Release(context.WithoutCancel(ctx))
		return
	}
	select {
	case <-g.taken:
	case <-ended:
	}
}

// quiet is BuildKit's logger in these calls: it warns when a writer can't be opened.
var quiet = func() *logrus.Entry {
	l := logrus.New()
	l.SetLevel(logrus.ErrorLevel)
	return logrus.NewEntry(l)
}()

// blobOf looks for a record of a stored layer that has a blob.
func (r *Replayer) blobOf(ctx context.Context, cm cache.Manager, id string) (ocispecs.Descriptor, error) {
	keys, err := r.layers.Users(ctx, id)
	if err != nil {
		return ocispecs.Descriptor{}, err
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Compare(serial(b), serial(a)) }) // the newest first
	for _, key := range keys[:min(len(keys), maxUsers)] {
		ref, err := cm.Get(ctx, path.Base(key), nil, cache.NoUpdateLastUsed)
		if err != nil {
			continue // it has another name, or is about to go
		}
		remotes, err := ref.GetRemotes(ctx, false, cacheconfig.RefConfig{Compression: compression.New(compression.Default)}, false, nil)
		_ = ref.Release(context.WithoutCancel(ctx))
		if err == nil && len(remotes) > 0 && len(remotes[0].Descriptors) > 0 {
			d := remotes[0].Descriptors
			return d[len(d)-1], nil
		}
	}
	return ocispecs.Descriptor{}, nil
}

// maxUsers is how many records of a stored layer are asked for a blob: where the newest have none, the layer is of a stage that is not exported.
const maxUsers = 8

// serial is the number in the key of a snapshot, "namespace/number/name"; the name is the record's id, or that of a chain of layers.
func serial(key string) int {
	_, rest, _ := strings.Cut(key, "/")
	digits, _, _ := strings.Cut(rest, "/")
	n, err := strconv.Atoi(digits)
	if err != nil {
		return -1
	}
	return n
}

// Contents is the content store of an engine that replays.
func Contents(inner content.Store) content.Store { return contents{inner} }

type contents struct{ content.Store }

func (c contents) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	if giftFor(ctx, o.Ref) != nil {
		return nil, errGiven
	}
	return c.Store.Writer(ctx, opts...)
}

// Comparer is the differ of an engine that replays.
func Comparer(inner diff.Comparer) diff.Comparer { return comparer{inner} }

type comparer struct{ diff.Comparer }

func (c comparer) Compare(ctx context.Context, lower, upper []mount.Mount, opts ...diff.Opt) (ocispecs.Descriptor, error) {
	var config diff.Config
	for _, opt := range opts {
		if err := opt(&config); err != nil {
			return ocispecs.Descriptor{}, err
		}
	}
	g := giftFor(ctx, config.Reference)
	if g == nil {
		return c.Comparer.Compare(ctx, lower, upper, opts...)
	}
	defer g.once.Do(func() { close(g.taken) })
	if err := g.take(ctx); err != nil { // whoever waits for this one must not fail of it
		logrus.WithError(err).Warn("keep the blob of a stored layer")
		g.refuse.Store(true)
		return c.Comparer.Compare(ctx, lower, upper, opts...)
	}
	return ocispecs.Descriptor{MediaType: g.blob.MediaType, Digest: g.blob.Digest, Size: g.blob.Size, URLs: g.blob.URLs}, nil
}

// keepBlob keeps a blob for as long as the lease of a context, which BuildKit hands on to the record.
func (r *Replayer) keepBlob(ctx context.Context, blob digest.Digest) error {
	lease, ok := leases.FromContext(ctx)
	if !ok {
		return errors.New("there is no lease")
	}
	if err := r.worker.LeaseManager().AddResource(ctx, leases.Lease{ID: lease}, leases.Resource{ID: blob.String(), Type: "content"}); err != nil {
		return err
	}
	_, err := r.worker.ContentStore().Info(ctx, blob)
	return err
}

// background returns how to start what nobody waits for, and how to end it: stop cancels all that was started and returns when it has ended. start is false
// from then on.
func background() (start func(func(context.Context)) bool, stop func()) {
	var (
		mu    sync.Mutex // guards ended, and that none is added while all are waited for
		ended bool
		work  sync.WaitGroup
	)
	ctx, cancel := context.WithCancel(context.Background())
	start = func(f func(context.Context)) bool {
		mu.Lock()
		defer mu.Unlock()
		if ended {
			return false
		}
		work.Go(func() { f(ctx) })
		return true
	}
	stop = func() {
		mu.Lock()
		ended = true
		mu.Unlock()
		cancel()
		work.Wait()
	}
	return start, stop
}
