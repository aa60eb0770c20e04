package sharing

import (
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/cache"
	cacheconfig "github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/cache/remotecache"
	v1 "github.com/moby/buildkit/cache/remotecache/v1"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/util/compression"
	"github.com/moby/buildkit/util/contentutil"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/builder/compress"
	"github.com/optbuild/optbuild/builder/engine/replay"
	"github.com/optbuild/optbuild/builder/record"
	"github.com/optbuild/optbuild/cache/remote"
)

// exporter writes what one build knows to a cache.
type exporter struct {
	solver.CacheExporterTarget
	made    *v1.CacheChains
	caches  *Caches
	store   *store
	builds  []*build // that asked for it
	session session.Group
	// handlers fetch the layers of all results: BuildKit gives out no record of which a layer is only mounted without.
	handlers cache.DescHandlers
}

var _ remotecache.Exporter = (*exporter)(nil)

func newExporter(c *Caches, store *store, builds []*build, g session.Group) *exporter {
	chains := v1.NewCacheChains()
	return &exporter{CacheExporterTarget: chains, made: chains, caches: c, store: store, builds: builds, session: g}
}

func (e *exporter) Name() string {
	return "exporting shared cache to " + reference.FamiliarString(e.store.named)
}

// Config says how layers are compressed that have no blob yet.
func (e *exporter) Config() remotecache.Config {
	return remotecache.Config{Compression: compression.New(compress.ForCache(compress.Options{}))}
}

// Finalize sends what the registry does not have yet. What goes wrong is told, and is no error of the build: the image is out.
func (e *exporter) Finalize(ctx context.Context) (map[string]string, error) {
	defer e.store.tell(ctx)
	entries, err := e.send(ctx)
	if err == nil {
		var more []remote.Entry
		more, err = e.mountEntries(ctx)
		entries = append(entries, more...)
	}
	if err != nil && ctx.Err() == nil {
		e.store.warn("not all of it was written: " + err.Error())
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	twinless := e.twinless(ctx)
	used, due := e.used()
	if len(entries) > 0 || due {
		e.add(ctx, append(entries, used...))
	}
	if twins := e.twins(ctx, twinless); len(twins) > 0 { // they take a while: all else is there already
		e.add(ctx, twins)
	}
	return nil, nil
}

// add returns when the entries are in the index. Until it is certain that no other writer has overwritten them at the same moment some seconds pass: the engine stays for so long, the
// command need not.
func (e *exporter) add(ctx context.Context, entries []remote.Entry) {
	there := make(chan struct{})
	e.caches.pending.Add(1)
	e.caches.later.Go(func() {
		defer e.caches.pending.Add(-1)
		if err := e.store.AddThen(context.WithoutCancel(ctx), entries, func() { close(there) }); err != nil {
			e.store.warn("it was not written: " + err.Error())
		}
	})
	select {
	case <-there:
	case <-ctx.Done():
	}
}

func (e *exporter) send(ctx context.Context) ([]remote.Entry, error) {
	config, blobs, err := e.made.Marshal(ctx)
	if err != nil {
		return nil, err
	}
	if len(config.Layers) == 0 {
		return nil, nil // nothing that another machine could use
	}
	e.handlers = handlersOf(blobs)
	s := &solved{Config: config, Names: e.names(ctx, config.Layers, blobs), Stored: map[string]string{}, Sums: map[string]string{}}
	traces, err := e.traces(ctx, s, blobs)
	if err != nil {
		return nil, fmt.Errorf("what steps have looked at: %w", err)
	}
	trees, err := e.trees(ctx)
	if err != nil {
		return nil, fmt.Errorf("names where files were copied to: %w", err)
	}
	times, err := e.times(ctx)
	if err != nil {
		return nil, fmt.Errorf("times of copied files: %w", err)
	}
	solverBlobs := maps.Clone(blobs)
	layers, err := e.layers(ctx, blobs)
	if err != nil {
		return nil, err
	}
	if err := e.push(ctx, blobs); err != nil {
		return nil, fmt.Errorf("send layers: %w", err)
	}
	entries := slices.Concat(traces, trees, times, layers)
	if known, err := e.known(ctx, config, solverBlobs); err != nil {
		return nil, err
	} else if !known {
		build, err := e.solved(ctx, s, solverBlobs)
		if err != nil {
			return nil, fmt.Errorf("send records: %w", err)
		}
		entries = append(entries, build)
	}
	return entries, nil
}

func handlersOf(blobs v1.DescriptorProvider) cache.DescHandlers {
	handlers := cache.DescHandlers{}
	for d, pair := range blobs {
		handlers[d] = &cache.DescHandler{Provider: func(g session.Group) content.Provider { return contentutil.ProviderForSession(pair, g) }, Annotations: pair.Descriptor.Annotations}
	}
	return handlers
}

// get returns a record of the build.
func (e *exporter) get(ctx context.Context, id string) (cache.ImmutableRef, error) {
	return e.caches.manager.Get(ctx, id, nil, cache.NoUpdateLastUsed, e.handlers)
}

// used are the entries of the scope that is written which the build has used: they are added again, so that what is in use does not grow too old. If nothing else is added, that is due once a day: then a build
// that has made nothing new does not ask the registry for anything.
func (e *exporter) used() (entries []remote.Entry, due bool) {
	for _, b := range e.builds {
		b.mu.Lock()
		for _, u := range b.used {
			if u.Scope == e.store.options.Write {
				due = due || now().Sub(u.Created) > remote.Refresh
				u.Created = now()
				entries = append(entries, u)
			}
		}
		b.mu.Unlock()
	}
	return entries, due
}

// now is when an entry is added. How old its content is does not matter: a step that ran long ago may be in use every day.
func now() time.Time { return time.Now().UTC() }

func (e *exporter) solved(ctx context.Context, s *solved, blobs v1.DescriptorProvider) (remote.Entry, error) {
	var holds []ocispecs.Descriptor
	for _, d := range slices.Sorted(maps.Keys(blobs)) {
		layer := blobs[d].Descriptor
		layer.Annotations = withoutSources(layer.Annotations)
		s.Layers = append(s.Layers, layer)
		holds = append(holds, bare(layer))
	}
	b, err := s.encode()
	if err != nil {
		return remote.Entry{}, err
	}
	blob, err := e.store.PushBytes(ctx, mediaTypeSolver, b)
	return remote.Entry{Kind: kindSolver, Key: "build", Created: now(), Blob: blob, Holds: holds}, err
}

// traces makes entries of the steps that ran, or were replayed; their layers join the blobs, and what is known of them is noted in s.
func (e *exporter) traces(ctx context.Context, s *solved, blobs v1.DescriptorProvider) (entries []remote.Entry, err error) {
	for _, b := range e.builds {
		b.mu.Lock()
		ran := slices.Clone(b.ran)
		maps.Copy(s.Stored, b.stored)
		maps.Copy(s.Sums, b.sums)
		b.mu.Unlock()
		for _, r := range ran {
			entry, ok, err := e.trace(ctx, b, r, s, blobs)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", r.Name, err)
			}
			if ok {
				entries = append(entries, entry)
			}
		}
	}
	return entries, nil
}

func (e *exporter) trace(ctx context.Context, b *build, r replay.Ran, s *solved, blobs v1.DescriptorProvider) (entry remote.Entry, ok bool, err error) {
	ref, err := e.get(ctx, r.Record)
	if err != nil {
		return entry, false, nil // it was pruned meanwhile, or is of a stage whose layers are not here
	}
	defer ref.Release(context.WithoutCancel(ctx))
	remotes, err := ref.GetRemotes(ctx, false, cacheconfig.RefConfig{Compression: e.Config().Compression}, false, e.session)
	if err != nil || len(remotes) == 0 || len(remotes[0].Descriptors) == 0 {
		return entry, false, nil // nobody has asked for its layer
	}
	layer := remotes[0].Descriptors[len(remotes[0].Descriptors)-1]
	if chain := e.chain(ref); chain != "" {
		s.Stored[chain] = r.Layer
	}
	var chains []string
	sums := r.Sums()
	for _, id := range r.Below {
		chain, diffID := e.digestsOf(ctx, id)
		chains = append(chains, chain)
		if sum := sums[id]; sum != "" && diffID != "" {
			s.Sums[diffID] = sum
		}
	}
	key, ok := r.Key(chains, b.layerID)
	if !ok {
		return entry, false, nil
	}
	t, err := r.Trace()
	if err != nil {
		return entry, false, nil // gone with its layer
	}
	t.Weak = key
	sealed, err := t.Encode(travelKey)
	if err != nil {
		return entry, false, err
	}
	blob, err := e.store.PushBytes(ctx, mediaTypeTrace, sealed)
	if err != nil {
		return entry, false, err
	}
	if _, ok := blobs[layer.Digest]; !ok {
		blobs[layer.Digest] = v1.DescriptorProviderPair{Descriptor: layer, Provider: remotes[0].Provider}
	}
	entry = remote.Entry{
		Kind: kindTrace, Key: hex.EncodeToString(key[:]), Created: now(), Blob: blob, Holds: []ocispecs.Descriptor{bare(layer)},
		Note: map[string]string{noteDiffID: layer.Annotations[labels.LabelUncompressed], noteStep: r.Name},
	}
	if toc := layer.Annotations[estargz.TOCJSONDigestAnnotation]; toc != "" {
		entry.Note[noteTOC] = toc
	}
	return entry, true, nil
}

// digestsOf are the chain id of a record and the digest of its layer's content, "" if it has none.
func (e *exporter) digestsOf(ctx context.Context, id string) (chain, diffID string) {
	ref, err := e.get(ctx, id)
	if err != nil {
		return "", ""
	}
	defer ref.Release(context.WithoutCancel(ctx))
	return e.chain(ref), ref.GetString(record.DiffID)
}

// times makes entries of the files that were copied.
func (e *exporter) times(ctx context.Context) (entries []remote.Entry, err error) {
	for _, b := range e.builds {
		b.mu.Lock()
		copied := slices.Clone(b.copied)
		b.mu.Unlock()
		for _, c := range copied {
			t, err := c.Times(ctx)
			if err != nil {
				if ctx.Err() != nil {
					return nil, err
				}
				logrus.WithError(err).Debugf("times of %s are not passed on", c.Name)
				continue
			}
			b, err := t.Encode()
			if err == nil {
				b, err = pack(b)
			}
			if err != nil {
				return nil, err
			}
			blob, err := e.store.PushBytes(ctx, mediaTypeTimes, b)
			if err != nil {
				return nil, err
			}
			entries = append(entries, remote.Entry{Kind: kindTimes, Key: c.Key, Created: now(), Blob: blob, Note: map[string]string{noteStep: c.Name}})
		}
	}
	return entries, nil
}

// bare is a descriptor without what is said about it elsewhere.
func bare(d ocispecs.Descriptor) ocispecs.Descriptor {
	return ocispecs.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}
