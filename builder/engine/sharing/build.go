package sharing

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/progress"
	"github.com/moby/buildkit/util/progress/controller"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/builder/engine/mounts"
	"github.com/optbuild/optbuild/builder/engine/replay"
	"github.com/optbuild/optbuild/builder/trace"
	"github.com/optbuild/optbuild/cache/remote"
)

// Kinds of entries that steps make, and their blobs.
const (
	kindTrace      = "trace" // its key is replay's; it holds the layer
	mediaTypeTrace = "application/vnd.optbuild.cache.trace.v1"
	maxTraceBytes  = 32 << 20

	kindTimes      = "times" // its key is replay's
	mediaTypeTimes = "application/vnd.optbuild.cache.times.v1+zstd"
	maxTimesBytes  = 16 << 20
	maxTimesPlain  = 64 << 20

	noteDiffID = "diff-id" // digest of what is in the layer
	noteTOC    = "toc"     // digest of its table of contents, if it has one
	noteStep   = "step"    // for people
)

// travelKey seals traces on their way. It is no secret: that a trace is what was stored, the digest says by which it is fetched.
var travelKey = []byte("optbuild: a trace that travels")

// build is what one build reads of shared caches, and has for them.
type build struct {
	mu     sync.Mutex
	read   []reading
	solved []*solved         // that was in them
	stored map[string]string // ids of stored layers by chain id
	sums   map[string]string // what small layers are known by, by the digest of their content
	names  map[string]string // of chains of layers
	writes bool              // there will be a cache to write
	worked []worksAt         // where file operations have
	ran    []replay.Ran
	images []string // records of images' layers that steps have had mounted
	copied []replay.Copied
	made   []made
	used   []remote.Entry // that were found, and were right; of solver entries those that were read
	mounts *mounts.Build  // nil: they do not travel
}

// reading is an index as it was when the build began.
type reading struct {
	store *store
	index *remote.Index
}

func (b *build) reads(r reading, list []*solved) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.read = append(b.read, r)
	b.solved = append(b.solved, list...)
	for _, s := range list {
		b.used = append(b.used, s.entry)
	}
	if b.stored == nil {
		b.stored, b.sums, b.names = map[string]string{}, map[string]string{}, map[string]string{}
	}
	for _, s := range list {
		maps.Copy(b.stored, s.Stored)
		maps.Copy(b.sums, s.Sums)
		maps.Copy(b.names, s.Names)
	}
}

func (b *build) readings() []reading {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.read)
}

// holds are the blobs that a repository has, by what was read of it.
func (b *build) holds(repository string) map[digest.Digest]bool {
	blobs := map[digest.Digest]bool{}
	for _, r := range b.readings() {
		if r.store.named.Name() != repository {
			continue
		}
		for _, kind := range []string{kindSolver, kindTrace, kindLayers} {
			for _, e := range r.index.All(kind) {
				for _, d := range e.Holds {
					blobs[d.Digest] = true
				}
			}
		}
	}
	return blobs
}

// layerID returns the id of the stored layer with a chain id.
func (b *build) layerID(chain string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stored[chain]
}

func (b *build) uses(e remote.Entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used = append(b.used, e)
}

var _ replay.Elsewhere = (*Caches)(nil)

// Asked is true if a session reads or writes a shared cache.
func (c *Caches) Asked(sessions []string) bool { return len(c.of(sessions, false)) > 0 }

// LayerID looks a chain of layers up in what was read.
func (c *Caches) LayerID(sessions []string, chain string) string {
	for _, b := range c.of(sessions, false) {
		if id := b.layerID(chain); id != "" {
			return id
		}
	}
	return ""
}

// Traces returns the entries of a step.
func (c *Caches) Traces(ctx context.Context, sessions []string, key string) (found []replay.Travelled) {
	for _, b := range c.of(sessions, false) {
		for _, r := range b.readings() {
			for _, e := range r.index.Find(kindTrace, key) {
				if layer, ok := layerOf(e); ok {
					found = append(found, replay.Travelled{
						Trace: func(ctx context.Context) (*trace.Trace, error) {
							t, err := r.store.Fetch(ctx, e.Blob, maxTraceBytes)
							if err != nil {
								return nil, err
							}
							return trace.Decode(t, travelKey)
						},
						Layer: layer, Handler: r.handler(ctx, layer), Used: func() { b.uses(e) },
					})
				}
			}
		}
	}
	return found
}

// layerOf is the layer that a trace's entry holds, as BuildKit wants to have it.
func layerOf(e remote.Entry) (ocispecs.Descriptor, bool) {
	if len(e.Holds) != 1 {
		return ocispecs.Descriptor{}, false
	}
	d := e.Holds[0]
	diffID, err := digest.Parse(e.Note[noteDiffID])
	if err != nil || images.IsNonDistributable(d.MediaType) {
		return d, false
	}
	d.Annotations = map[string]string{labels.LabelUncompressed: diffID.String()}
	if toc := e.Note[noteTOC]; toc != "" {
		if _, err := digest.Parse(toc); err != nil {
			return d, false
		}
		d.Annotations[estargz.TOCJSONDigestAnnotation] = toc
	}
	return d, true
}

func (r reading) handler(ctx context.Context, d ocispecs.Descriptor) *cache.DescHandler {
	return &cache.DescHandler{
		Provider:       func(session.Group) content.Provider { return r.store.Provider() },
		Progress:       &controller.Controller{WriterFactory: progress.FromContext(ctx)},
		SnapshotLabels: inParts(r.store.ref(), []ocispecs.Descriptor{d}, 0),
		Annotations:    d.Annotations,
		Ref:            r.store.ref(),
	}
}

// Times returns the newest entry of a COPY.
func (c *Caches) Times(ctx context.Context, sessions []string, key string) *replay.Times {
	for _, b := range c.of(sessions, false) {
		for _, r := range b.readings() {
			found := r.index.Find(kindTimes, key)
			if len(found) == 0 {
				continue
			}
			t, err := r.times(ctx, found[0])
			if err == nil {
				return t
			}
			if ctx.Err() == nil {
				logrus.WithError(err).Warn("shared cache: the times of copied files are not used")
			}
		}
	}
	return nil
}

func (r reading) times(ctx context.Context, e remote.Entry) (*replay.Times, error) {
	z, err := r.store.Fetch(ctx, e.Blob, maxTimesBytes)
	if err != nil {
		return nil, err
	}
	plain, err := unpackJSON(z, maxTimesPlain)
	if err != nil {
		return nil, err
	}
	return replay.DecodeTimes(plain)
}

// Ran notes a step for whoever writes a cache at the end.
func (c *Caches) Ran(sessions []string, r replay.Ran) {
	for _, b := range c.of(sessions, false) {
		b.mu.Lock()
		b.ran = append(b.ran, r)
		b.mu.Unlock()
	}
}

// Copied notes a COPY.
func (c *Caches) Copied(sessions []string, copied replay.Copied) {
	for _, b := range c.of(sessions, false) {
		b.mu.Lock()
		b.copied = append(b.copied, copied)
		b.mu.Unlock()
	}
}

// Mounted notes layers of images that a step has mounted.
func (c *Caches) Mounted(sessions []string, layers []string) {
	for _, b := range c.of(sessions, false) {
		b.mu.Lock()
		b.images = append(b.images, layers...)
		b.mu.Unlock()
	}
}
