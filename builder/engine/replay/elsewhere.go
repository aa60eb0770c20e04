package replay

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/moby/buildkit/cache"
	cacheconfig "github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/compression"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/builder/compress"
	"github.com/optbuild/optbuild/builder/engine/lazy"
	"github.com/optbuild/optbuild/builder/engine/mounts"
	"github.com/optbuild/optbuild/builder/outcome"
	"github.com/optbuild/optbuild/builder/record"
	"github.com/optbuild/optbuild/builder/trace"
)

// Elsewhere is what machines tell each other of steps that ran (package sharing has it from a registry). Builds are told apart by their sessions: each sees the caches that it asked for,
// and tells those.
type Elsewhere interface {
	// Asked is true if any of the sessions reads or writes a shared cache.
	Asked(sessions []string) bool
	// Traces returns what was stored under a key, the newest first. A trace comes with the layer that its step made.
	Traces(ctx context.Context, sessions []string, key string) []Travelled
	// Chain returns the name of a chain of layers that were fetched (package record: Chains); "" if it is its own.
	Chain(sessions []string, chain string) string
	// LayerID returns the id of the stored layer whose blob, on those of the layers below it, has a name; "" if that is not known.
	LayerID(sessions []string, chain string) string
	// HasMounts is true if there is an archive for each of the keys of cache mounts.
	HasMounts(sessions []string, keys []mounts.Key) bool
	// Sum returns what the small layer with a digest of content is known by, or that it is watched; "" if that is not known.
	Sum(sessions []string, diffID string) string
	// Times returns the files of the COPY that was made last under a key; nil if there is none.
	Times(ctx context.Context, sessions []string, key string) *Times
	// Ran and Copied are told what a build may pass on.
	Ran(sessions []string, r Ran)
	Copied(sessions []string, c Copied)
}

// Travelled is a trace from elsewhere.
type Travelled struct {
	Trace func(context.Context) (*trace.Trace, error) // fetches it; the weak key in it is the key that it was asked for under
	Layer ocispecs.Descriptor                         // with the digest of what is in it as an annotation, as BuildKit has it
	// Handler fetches the layer.
	Handler *cache.DescHandler
	// Used is told when the layer was taken, so that it is passed on.
	Used func()
}

// Ran is a step whose layer was stored, with what another machine needs to know to find it.
type Ran struct {
	Name   string
	Layer  string                       // id of the stored layer
	Record string                       // of BuildKit's cache, with the layer
	Below  []string                     // the records that it lies on, topmost first
	Base   []string                     // those of them that are of the base image
	Trace  func() (*trace.Trace, error) // as it is stored here
	key    []carried
}

// carried is a part of a key that means the same on all machines.
type carried struct {
	name, value string
	small       int // the value is the sum of the layer at this depth, or that it is watched
	depth       int // of a layer below the step, from 1 for the topmost, whose chain id is the value; 0: the value stands as it is
}

// Sums are what the small layers below the step are known by, by their records.
func (r Ran) Sums() map[string]string {
	sums := map[string]string{}
	for _, p := range r.key {
		if p.small > 0 && p.small <= len(r.Below) {
			sums[r.Below[p.small-1]] = p.value
		}
	}
	return sums
}

// Key returns the key that other machines find the step under. chains are the chain ids of the layers below it, topmost first, "" where there is none.
func (r Ran) Key(chains []string, layerID func(chain string) string) (sum [32]byte, ok bool) {
	return portableKey(r.key, chains, layerID)
}

// portableKey is like a weak key, but for numbers of snapshots, which mean nothing elsewhere: layers are known by the stored layer that they are, or by the digests of their content and of
// all that they lie on.
func portableKey(parts []carried, chains []string, layerID func(chain string) string) (sum [32]byte, ok bool) {
	h := sha256.New()
	add := func(s string) {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(s))))
		h.Write([]byte(s))
	}
	if len(parts) == 0 {
		return sum, false
	}
	add("optbuild shared trace 1")
	for _, p := range parts {
		add(p.name)
		switch {
		case p.depth == 0:
			add(p.value)
		case p.depth > len(chains):
			add("nothing")
		case chains[p.depth-1] == "":
			return sum, false
		default:
			if id := layerID(chains[p.depth-1]); id != "" {
				add("stored " + id)
			} else {
				add("chain " + chains[p.depth-1])
			}
		}
	}
	h.Sum(sum[:0])
	return sum, true
}

// sessions are the builds that a step is solved for.
func sessions(g session.Group) []string {
	if g == nil {
		return nil
	}
	return session.AllSessionIDs(g)
}

// elsewhere looks for a run of the step on another machine that saw what it would see here, and takes its layer.
func (st *step) elsewhere(ctx context.Context, in *inputs) bool {
	e := st.r.others
	st.mu.Lock()
	parent, cm, g := st.parent, st.cm, st.session
	st.mu.Unlock()
	ids := sessions(g)
	if e == nil || st.noCache || parent == nil || !e.Asked(ids) || len(st.mounts) > 0 && !e.HasMounts(ids, st.mounts) {
		return false
	}
	below := chainIDs(parent, func(chain string) string { return e.Chain(ids, chain) })
	if st.root != nil && len(below) != len(st.root.Lower) {
		return false
	}
	key, ok := portableKey(stored(in.portable, parent), below, func(chain string) string { return e.LayerID(ids, chain) })
	if !ok {
		return false
	}
	found := e.Traces(ctx, ids, hex.EncodeToString(key[:]))
	for _, f := range found[:min(len(found), maxTravelled)] {
		t, err := f.Trace(ctx)
		if err == nil && t.Weak != key {
			err = errors.New("it is of another step")
		}
		var d *trace.Difference
		if err == nil {
			d, err = st.compare(in, t)
		}
		switch {
		case errors.Is(err, errNotHere):
			logrus.WithError(err).Debugf("shared trace of %s", st.name)
		case err != nil:
			logrus.WithError(err).Warnf("shared trace of %s", st.name)
		case d != nil:
			logrus.Debugf("shared trace of %s: %s", st.name, d.Text(in.show(d)))
		default:
			if err := st.take(ctx, parent, cm, g, f, t); err != nil {
				if ctx.Err() != nil {
					return false
				}
				logrus.WithError(err).Warnf("use the shared layer of %s", st.name)
				continue
			}
			f.Used()
			st.remember(in)
			st.tell(ctx, outcome.Outcome{Result: outcome.Replayed, Observed: observed(t.Layers)})
			return true
		}
	}
	return false
}

// maxTravelled is how many traces are fetched for a step.
const maxTravelled = 4

// take makes the step's result a record of the layer, on what is below the step now. The layer is fetched when something needs its files.
func (st *step) take(ctx context.Context, parent cache.ImmutableRef, cm cache.Manager, g session.Group, f Travelled, t *trace.Trace) error {
	// A record on another one wants that to have a blob: a COPY that was just made has none.
	c := compress.Instead(compression.New(compression.Default), compress.Options{Cores: 1})
	remotes, err := parent.GetRemotes(ctx, true, cacheconfig.RefConfig{Compression: c}, false, g)
	if err != nil {
		return err
	}
	handlers := lazy.Handlers(parent, remotes[0].Descriptors)
	handlers[f.Layer.Digest] = f.Handler
	opts := []cache.RefOption{handlers, cache.WithDescription(fmt.Sprintf("%s, made elsewhere", st.name))}
	if f.Handler.Ref != "" {
		opts = append(opts, cache.WithImageRef(f.Handler.Ref))
	}
	ref, err := cm.GetByBlob(ctx, f.Layer, parent, opts...)
	if err != nil {
		return err
	}
	err = ref.SetString(record.Stored, t.Layer, "")
	if err == nil && readsContext(t.Layers) {
		err = ref.SetString(record.ContextRead, "yes", "")
	}
	if err != nil {
		return errors.Join(err, ref.Release(context.WithoutCancel(ctx)))
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.instead = st.r.files.Wrap(ref)
	return nil
}

// chainIDs are the names of the layers of a record, topmost first.
func chainIDs(ref cache.ImmutableRef, named func(chain string) string) []string {
	list := ref.LayerChain()
	defer list.Release(context.Background())
	return chainNames(list, named)
}

func chainNames(list cache.RefList, named func(chain string) string) []string {
	ids := record.Chains(list, named)
	slices.Reverse(ids)
	return ids
}

// stored has layers of RUNs that were taken from elsewhere known by the stored layers that they are, like those that were stored here: on the COPYs of today nobody knows their digests.
func stored(parts []carried, parent cache.ImmutableRef) []carried {
	list := parent.LayerChain()
	defer list.Release(context.Background())
	parts = slices.Clone(parts)
	for i, p := range parts {
		if p.depth == 0 || p.depth > len(list) || p.name == baseField {
			continue
		}
		if id := list[len(list)-p.depth].GetString(record.Stored); id != "" {
			parts[i] = carried{name: p.name, value: "stored " + id}
		}
	}
	return parts
}

// baseField names the part of a key that is what lies below all steps.
const baseField = "base"

// pass tells others of a step whose layer is stored, when its record is there.
func (st *step) pass(ref cache.ImmutableRef) {
	e := st.r.others
	st.mu.Lock()
	parent, ids, layer, parts, seen := st.parent, sessions(st.session), st.layer, st.portable, st.watched
	st.mu.Unlock()
	if layer == "" {
		return
	}
	if err := ref.SetString(record.Stored, layer, ""); err != nil {
		logrus.WithError(err).Warnf("note the stored layer of %s", st.name)
		return
	}
	if e == nil || parent == nil || !e.Asked(ids) {
		return
	}
	list := parent.LayerChain()
	defer list.Release(context.Background())
	r := Ran{Name: st.name, Layer: layer, Record: ref.ID(), key: stored(parts, parent), Trace: func() (*trace.Trace, error) {
		t, err := st.r.traces.Of(layer)
		if err != nil {
			return nil, err
		}
		return withResults(t, seen)
	}}
	for _, below := range slices.Backward(list) {
		r.Below = append(r.Below, below.ID())
	}
	r.Base = r.Below[min(len(st.chain), len(r.Below)):]
	e.Ran(ids, r)
}

// Release also gives up what was taken from elsewhere and did not become a result.
func (r *rootRef) Release(ctx context.Context) error {
	r.step.mu.Lock()
	instead := r.step.instead
	r.step.instead = nil
	r.step.mu.Unlock()
	var err error
	if instead != nil {
		err = instead.Release(ctx)
	}
	return errors.Join(err, r.MutableRef.Release(ctx))
}

// SetElsewhere connects a replayer to other machines. It is called before anything is solved.
func (r *Replayer) SetElsewhere(e Elsewhere, files *lazy.Files) { r.others, r.files = e, files }
