package lazypull

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	ctdlabels "github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/moby/buildkit/cache"
	cacheconfig "github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/compression"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/builder/compress"
	records "github.com/optbuild/optbuild/builder/record"
)

// A twin of a layer is another blob with the same files, and a table of contents: shared caches have twins of the large layers of base images, which most often have no table. A step whose root has such a layer below it
// runs on the twin.
//
//	what the solver has       what the step runs on
//	COPY . .                  COPY . .     the same blob
//	base, sha256:1, gzip      base         the same blob, sha256:1; its files are the twin's, sha256:2
//
// The records on the right are made when the step begins. They name the blobs of the left ones, and have what is known of these; so whoever exports them, or fetches them whole, gets what the base image has, and nothing but the
// snapshot's note knows of the twin. Their chain ids have the digest of the twin's table in them, as if the layer had it: files that nobody has compared with the digest of the content do not stand for those that somebody has.
// To other machines they go by the names of the left ones (package record: Name).

// Twin is where parts of a layer can be had.
type Twin struct {
	TOC digest.Digest
	// Labels tell the snapshotter of the twin, as BuildKit tells it of layers that have a table; TwinLabels adds to them.
	Labels map[string]string
}

// Elsewhere has twins (package sharing has them from a registry).
type Elsewhere interface {
	// Asked is true if any of the sessions reads or writes a shared cache.
	Asked(sessions []string) bool
	// Chain returns the name of a chain of layers that were fetched (package record: Chains); "" if it is its own.
	Chain(sessions []string, chain string) string
	// Twin returns that of a layer whose content has a digest; false if there is none, or no use for one.
	Twin(ctx context.Context, sessions []string, diffID string, blob ocispecs.Descriptor) (Twin, bool)
	// Mounted is told of layers of images, by the ids of their records, that a step has in its root or in a mount.
	Mounted(sessions []string, layers []string)
}

// The labels of a twin: the blob that the record names, and the twin's size.
const (
	twinLabel      = "containerd.io/snapshot/remote/optbuild.twin-of"
	twinBytesLabel = "containerd.io/snapshot/remote/optbuild.twin-bytes"
)

// TwinLabels are those of a twin, of this size, of a blob.
func TwinLabels(of digest.Digest, bytes int64) map[string]string {
	return map[string]string{twinLabel: of.String(), twinBytesLabel: fmt.Sprint(bytes)}
}

// SetTwins says who has twins. It is called before anything is solved.
func (p *Puller) SetTwins(e Elsewhere) { p.twins = e }

type rootKey struct{}

// WithRoot returns a context in which a Manager's New tells f the id of the record that it has made a snapshot on, if that is not its parent.
func WithRoot(ctx context.Context, f func(id string)) context.Context {
	return context.WithValue(ctx, rootKey{}, f)
}

// onTwins returns what a step is to run on in place of a record whose layers have not been fetched: records that are read by twins. It is nil if there is no twin, or none that is wanted; whatever is in the way is no error, since
// everything is at hand in the other way.
func (m manager) onTwins(ctx context.Context, parent cache.ImmutableRef, g session.Group) cache.ImmutableRef {
	if m.p == nil || m.p.twins == nil || g == nil || !m.wantsParts(g) {
		return nil
	}
	ids := session.AllSessionIDs(g)
	if !m.p.twins.Asked(ids) {
		return nil
	}
	list := parent.LayerChain()
	defer func() { _ = list.Release(context.WithoutCancel(ctx)) }()
	r, err := m.twinsOf(ctx, parent, list, ids, g)
	if err != nil {
		logrus.WithError(err).Debug("the twins of layers are not used")
		return nil
	}
	if f, ok := ctx.Value(rootKey{}).(func(string)); ok && r != nil {
		f(r.ID())
	}
	return r
}

// OnTwins is for who only reads files, and runs no step on them.
func (m manager) OnTwins(ctx context.Context, r cache.ImmutableRef, g session.Group) cache.ImmutableRef {
	if !Partial(r) {
		return nil
	}
	on := m.onTwins(ctx, r, g)
	if on == nil {
		return nil
	}
	if err := m.between(ctx, on, g); err != nil {
		logrus.WithError(err).Debug("the twins of layers are not used")
		_ = on.Release(context.WithoutCancel(ctx))
		return nil
	}
	return on
}

// Unread returns a function that says why a layer, whichever it is, could not be read since Unread was called.
func (m manager) Unread() func() error {
	if m.p == nil {
		return func() error { return nil }
	}
	before, _ := m.p.failures.coming()
	return func() error { return m.p.failures.since(before, func(string) bool { return true }) }
}

func (m manager) twinsOf(ctx context.Context, parent cache.ImmutableRef, list cache.RefList, ids []string, g session.Group) (r cache.ImmutableRef, err error) {
	remotes, err := parent.GetRemotes(ctx, false, cacheconfig.RefConfig{Compression: compression.New(compression.Default)}, false, g)
	if err != nil || len(remotes) == 0 {
		return nil, err
	}
	layers := remotes[0].Descriptors
	if len(layers) != len(list) || list[len(list)-1].ID() != parent.ID() {
		return nil, nil
	}
	twins, first := m.find(ctx, list, layers, ids)
	if first < 0 {
		return nil, nil
	}
	if err := simple(list, layers); err != nil {
		return nil, err
	}
	for i := range twins {
		m.p.noteTwinned(layers[i].Digest)
	}
	names := records.Chains(list, func(chain string) string { return m.p.twins.Chain(ids, chain) })
	return m.restack(ctx, parent, list, layers, first, twins, names)
}

// restack makes the records of layers again, from the first one on: with twins, by their names for other machines, if there are any.
func (m manager) restack(ctx context.Context, parent cache.ImmutableRef, list cache.RefList, layers []ocispecs.Descriptor, first int, twins map[int]Twin, names []string) (r cache.ImmutableRef, err error) {
	handlers := cache.DescHandlers{}
	for i, d := range layers {
		h := parent.DescHandler(d.Digest)
		if h == nil {
			continue
		}
		if t, ok := twins[i]; ok || hasTwin(h) {
			own := *h
			own.SnapshotLabels = t.Labels
			h = &own
		}
		handlers[d.Digest] = h
	}
	if first > 0 {
		r = list[first-1].Clone()
	}
	for i := first; i < len(list); i++ {
		below := r
		r, err = m.twin(ctx, list[i], layers[i], twins[i], below, handlers, names[i])
		if below != nil {
			err = errors.Join(err, below.Release(context.WithoutCancel(ctx)))
		}
		if err != nil {
			if r != nil {
				err = errors.Join(err, r.Release(context.WithoutCancel(ctx)))
			}
			return nil, fmt.Errorf("layer %s: %w", layers[i].Digest, err)
		}
	}
	return r, nil
}

func (p *Puller) noteTwinned(blob digest.Digest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.twinned == nil {
		p.twinned = map[digest.Digest]bool{}
	}
	p.twinned[blob] = true
}

// believed is a layer without what its labels have no right to say: annotations of images become labels, too.
func (p *Puller) believed(l layer) layer {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !l.Cache || !p.twinned[l.Of] {
		l.Of, l.Bytes = "", 0
	}
	return l
}

// OffTwins returns what a build that asks for no shared cache runs on in place of a record that is read by twins: the layers as they are in images. So it needs nothing of a cache that may be gone or damaged, which may be why it does
// not ask. It is nil if there are no twins, or if that can't be done.
func (m manager) OffTwins(ctx context.Context, parent cache.ImmutableRef, g session.Group) cache.ImmutableRef {
	if m.p == nil || m.p.twins == nil || g == nil || m.p.twins.Asked(session.AllSessionIDs(g)) {
		return nil
	}
	list := parent.LayerChain()
	defer func() { _ = list.Release(context.WithoutCancel(ctx)) }()
	if !slices.ContainsFunc(list, func(l cache.ImmutableRef) bool { return blobOnly(l) && l.GetString(records.Name) != "" }) {
		return nil
	}
	r, err := m.plain(ctx, parent, list, g)
	if err != nil {
		logrus.WithError(err).Debug("a build without a shared cache reads layers by it")
	}
	return r
}

func (m manager) plain(ctx context.Context, parent cache.ImmutableRef, list cache.RefList, g session.Group) (cache.ImmutableRef, error) {
	c := compress.Instead(compression.New(compression.Default), compress.Options{Cores: 1})
	remotes, err := parent.GetRemotes(ctx, true, cacheconfig.RefConfig{Compression: c}, false, g)
	if err != nil {
		return nil, err
	}
	layers := remotes[0].Descriptors
	if len(layers) != len(list) || list[len(list)-1].ID() != parent.ID() {
		return nil, errors.New("its layers are not those of its blobs")
	}
	first := -1
	for i, l := range list {
		below := ""
		if i > 0 {
			below = list[i-1].GetString(records.Chain)
		}
		if blobOnly(l) && !is(l, below, layers[i]) {
			first = i
			break
		}
	}
	if first < 0 {
		return nil, nil
	}
	return m.restack(ctx, parent, list, layers, first, nil, make([]string, len(list)))
}

// find looks for twins of layers that are not here. First is the lowest that has one; -1 if there is none, or if above it are files that would have to be made again.
func (m manager) find(ctx context.Context, list cache.RefList, layers []ocispecs.Descriptor, ids []string) (twins map[int]Twin, first int) {
	twins, first = map[int]Twin{}, -1
	for i, l := range list {
		if !blobOnly(l) {
			if first >= 0 {
				return nil, -1
			}
			continue
		}
		if hasTable(layers[i]) {
			continue
		}
		if t, ok := m.p.twins.Twin(ctx, ids, l.GetString(records.DiffID), layers[i]); ok {
			twins[i] = t
			if first < 0 {
				first = i
			}
		}
	}
	return twins, first
}

// simple is an error if the layers are others than each one on the one before: BuildKit also merges some.
func simple(list cache.RefList, layers []ocispecs.Descriptor) error {
	below := ""
	for i, l := range list {
		if !is(l, below, layers[i]) {
			return errors.New("it is no layer on the one below")
		}
		if l.GetLayerType() != "" {
			return fmt.Errorf("it is a layer of %s", l.GetLayerType())
		}
		below = l.GetString(records.Chain)
	}
	return nil
}

// is is true if a record is that of a layer on what is below, with no table but its own.
func is(l cache.ImmutableRef, below string, d ocispecs.Descriptor) bool {
	chain, diffID := l.GetString(records.Chain), l.GetString(records.DiffID)
	return chain != "" && (chain == records.ChainOf(below, diffID, "") || chain == records.ChainOf(below, diffID, d.Annotations[estargz.TOCJSONDigestAnnotation]))
}

// twin makes the record of one layer on what is below. It is known by the layer's blob; the twin's table is a part of its chain id only.
func (m manager) twin(ctx context.Context, l cache.ImmutableRef, d ocispecs.Descriptor, t Twin, below cache.ImmutableRef, handlers cache.DescHandlers, name string) (cache.ImmutableRef, error) {
	d.Annotations = maps.Clone(d.Annotations)
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	}
	d.Annotations[ctdlabels.LabelUncompressed] = l.GetString(records.DiffID)
	if t.TOC != "" {
		d.Annotations[estargz.TOCJSONDigestAnnotation] = t.TOC.String()
	}
	opts := []cache.RefOption{handlers, cache.WithDescription(l.GetDescription()), cache.WithCreationTime(l.GetCreatedAt())}
	for _, image := range imageRefs(l) {
		opts = append(opts, cache.WithImageRef(image))
	}
	r, err := m.Manager.GetByBlob(ctx, d, below, opts...)
	if err != nil {
		return nil, err
	}
	for field, value := range map[string]string{
		records.Name: name, records.Stored: l.GetString(records.Stored), records.ContextRead: l.GetString(records.ContextRead),
	} {
		if value != "" && r.GetString(field) != value {
			err = errors.Join(err, r.SetString(field, value, ""))
		}
	}
	return r, err
}

// imageRefs are the images that a layer was pulled with.
func imageRefs(l cache.ImmutableRef) (names []string) {
	if v := l.Get(records.ImageRefs); v == nil || v.Unmarshal(&names) != nil {
		return nil
	}
	slices.Sort(names)
	return slices.Compact(names)
}
