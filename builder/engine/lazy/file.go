package lazy

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/moby/buildkit/cache"
	cacheconfig "github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/snapshot"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/compression"
	"github.com/moby/buildkit/util/overlay"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/builder/compress"
	"github.com/optbuild/optbuild/builder/engine/lazypull"
	"github.com/optbuild/optbuild/builder/record"
)

// Elsewhere has the trees that machines tell each other of (package sharing has them from a registry).
type Elsewhere interface {
	// Asked is true if any of the sessions reads or writes a shared cache.
	Asked(sessions []string) bool
	// Chain returns the name of a chain of layers that were fetched (package record: Chains); "" if it is its own.
	Chain(sessions []string, chain string) string
	// Tree returns what is at a place of the file system whose layers have a name; nil if that is not known.
	Tree(ctx context.Context, sessions []string, chain, place string) *Tree
	// Place is told where a file operation works, for those who will have other files to copy there: on a record, by its id.
	Place(sessions []string, below string, places []string)
}

// Files makes file operations on layers that have not been fetched. Its methods may be called concurrently.
type Files struct {
	elsewhere Elsewhere
	parts     inParts // nil: nothing is read in parts

	mu sync.Mutex
	// made are the results of such operations, by the id of their record: where their files are, for as long as a reference is held.
	made  map[string]made
	order []string // the oldest first
}

type made struct {
	dir string
	ref cache.ImmutableRef // on a skeleton
}

// maxMade is how many results are kept at hand.
const maxMade = 256

// NewFiles returns what asks others for trees. The manager is [Plain]'s.
func NewFiles(e Elsewhere, m cache.Manager) *Files {
	f := &Files{elsewhere: e, made: map[string]made{}}
	f.parts, _ = m.(inParts)
	return f
}

// Dir returns the directory of a layer that a file operation made although those below it were not fetched; "" if it did not.
func (f *Files) Dir(id string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.made[id].dir
}

// Close releases what is held.
func (f *Files) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.made {
		release(context.Background(), m.ref)
	}
	f.made, f.order = map[string]made{}, nil
}

func (f *Files) keep(id string, m made) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if old, ok := f.made[id]; ok {
		release(context.Background(), old.ref)
	} else {
		f.order = append(f.order, id)
	}
	f.made[id] = m
	if len(f.order) > maxMade {
		release(context.Background(), f.made[f.order[0]].ref)
		delete(f.made, f.order[0])
		f.order = f.order[1:]
	}
}

// Manager is the cache manager of one file operation.
func (f *Files) Manager(m cache.Manager, op *pb.FileOp) cache.Manager {
	return fileManager{m, f, places(op)}
}

// places are where an operation works; nil if that can't be told, or if it has several results.
func places(op *pb.FileOp) (list []string) {
	outputs := 0
	for _, a := range op.Actions {
		if a.Output >= 0 {
			outputs++
		}
		place := ""
		switch {
		case a.GetMkdir() != nil:
			place = a.GetMkdir().Path
		case a.GetCopy() != nil:
			place = a.GetCopy().Dest
		}
		if !path.IsAbs(place) {
			return nil
		}
		place = path.Clean(place)
		if !slices.Contains(list, place) {
			list = append(list, place)
		}
	}
	if outputs != 1 {
		return nil
	}
	return list
}

type fileManager struct {
	cache.Manager
	files  *Files
	places []string
}

// New makes what the operation writes to: on the layers below, or, if they have not been fetched and it can be avoided, on a skeleton of them.
func (m fileManager) New(ctx context.Context, parent cache.ImmutableRef, g session.Group, opts ...cache.RefOption) (cache.MutableRef, error) {
	if parent == nil || len(m.places) == 0 || g == nil || !m.files.elsewhere.Asked(session.AllSessionIDs(g)) {
		return m.Manager.New(ctx, parent, g, opts...)
	}
	if Pending(parent) {
		w, err := m.onSkeleton(ctx, parent, g, opts)
		if err == nil {
			if used, ok := ctx.Value(usedKey{}).(*atomic.Bool); ok {
				used.Store(true)
			}
			return w, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		logrus.WithError(err).Debug("layers are fetched for a file operation")
	}
	below := parent.ID()
	w, err := m.Manager.New(lazypull.WithRoot(ctx, func(id string) { below = id }), parent, g, opts...)
	if err == nil {
		m.files.elsewhere.Place(session.AllSessionIDs(g), below, m.places)
	}
	return w, err
}

type asideKey struct{}

// Aside is true in calls for references that are no step's result, nor what one begins on.
func Aside(ctx context.Context) bool { return ctx.Value(asideKey{}) != nil }

var errNoTree = errors.New("nobody knows what is where it works")

func (m fileManager) onSkeleton(ctx context.Context, parent cache.ImmutableRef, g session.Group, opts []cache.RefOption) (cache.MutableRef, error) {
	ids := session.AllSessionIDs(g)
	list := parent.LayerChain()
	chains := record.Chains(list, func(chain string) string { return m.files.elsewhere.Chain(ids, chain) })
	if err := list.Release(ctx); err != nil {
		return nil, err
	}
	if len(chains) == 0 || chains[len(chains)-1] == "" {
		return nil, errNoTree
	}
	chain := chains[len(chains)-1]
	var trees []*Tree
	for _, place := range m.places {
		t := m.files.elsewhere.Tree(ctx, ids, chain, place)
		if t == nil {
			return nil, fmt.Errorf("%w: %s on %s", errNoTree, place, chain)
		}
		trees = append(trees, t)
	}
	ctx = context.WithValue(ctx, asideKey{}, true)
	below, err := skeleton(ctx, m.Manager, merge(trees), g)
	if err != nil {
		return nil, fmt.Errorf("make a skeleton: %w", err)
	}
	defer release(ctx, below)
	w, err := m.Manager.New(ctx, below, g, opts...)
	if err != nil {
		return nil, err
	}
	return &onSkeleton{MutableRef: w, manager: m, parent: parent.Clone(), session: g, opts: opts}, nil
}

// skeleton is a layer with the names of a tree.
func skeleton(ctx context.Context, m cache.Manager, t *Tree, g session.Group) (cache.ImmutableRef, error) {
	w, err := m.New(ctx, nil, g, cache.WithDescription("names for a file operation on layers that are elsewhere"))
	if err != nil {
		return nil, err
	}
	if err := OnFiles(ctx, w, false, g, t.write); err != nil {
		return nil, errors.Join(err, w.Release(context.WithoutCancel(ctx)))
	}
	return w.Commit(ctx)
}

// OnFiles calls f with a directory in which a reference is mounted.
func OnFiles(ctx context.Context, r cache.Mountable, readonly bool, g session.Group, f func(dir string) error) error {
	mountable, err := r.Mount(ctx, readonly, g)
	if err != nil {
		return err
	}
	mounter := snapshot.LocalMounter(mountable)
	dir, err := mounter.Mount()
	if err != nil {
		return err
	}
	return errors.Join(f(dir), mounter.Unmount())
}

// onSkeleton is what an operation writes to in place of layers that have not been fetched.
type onSkeleton struct {
	cache.MutableRef
	manager fileManager
	parent  cache.ImmutableRef
	session session.Group
	opts    []cache.RefOption
	ended   bool // Commit was called
}

func (w *onSkeleton) Release(ctx context.Context) error {
	if w.ended {
		return nil
	}
	return errors.Join(w.MutableRef.Release(ctx), w.parent.Release(ctx))
}

// Commit puts the layer that was made on the skeleton upon those that have not been fetched.
func (w *onSkeleton) Commit(ctx context.Context) (cache.ImmutableRef, error) {
	upper, err := w.MutableRef.Commit(ctx)
	if err != nil {
		return nil, err
	}
	w.ended = true
	defer release(ctx, w.parent)
	r, err := w.lift(ctx, upper)
	if err != nil {
		release(ctx, upper)
		return nil, fmt.Errorf("put what was made on layers that are elsewhere: %w", err)
	}
	return r, nil
}

func (w *onSkeleton) lift(ctx context.Context, upper cache.ImmutableRef) (cache.ImmutableRef, error) {
	dirs, err := directories(ctx, upper, w.session)
	if err != nil {
		return nil, err
	}
	dir := dirs[0]
	if err := within(dir, w.manager.places); err != nil {
		return nil, err
	}
	c := compress.Instead(compression.New(compression.Default), compress.Options{Cores: 1})
	remotes, err := upper.GetRemotes(ctx, true, cacheconfig.RefConfig{Compression: c}, false, w.session)
	if err != nil {
		return nil, err
	}
	layers := remotes[0].Descriptors
	below, err := w.parent.GetRemotes(ctx, false, cacheconfig.RefConfig{Compression: c}, false, w.session)
	if err != nil {
		return nil, err
	}
	r, err := w.manager.GetByBlob(ctx, layers[len(layers)-1], w.parent, append(slices.Clone(w.opts), Handlers(w.parent, below[0].Descriptors))...)
	if err != nil {
		return nil, err
	}
	w.manager.files.keep(r.ID(), made{dir, upper})
	return w.manager.files.Wrap(r), nil
}

// Handlers fetch layers of a reference.
func Handlers(r cache.ImmutableRef, layers []ocispecs.Descriptor) cache.DescHandlers {
	handlers := cache.DescHandlers{}
	for _, d := range layers {
		if h := r.DescHandler(d.Digest); h != nil {
			handlers[d.Digest] = h
		}
	}
	return handlers
}

// directories are where the files of a reference's layers are, the topmost first.
func directories(ctx context.Context, r cache.ImmutableRef, g session.Group) ([]string, error) {
	mountable, err := r.Mount(ctx, true, g)
	if err != nil {
		return nil, err
	}
	mounts, done, err := mountable.Mount()
	if err != nil {
		return nil, err
	}
	if done != nil {
		defer done()
	}
	if len(mounts) != 1 {
		return nil, errors.New("the layers have no directories of their own")
	}
	if mounts[0].Type == "bind" || mounts[0].Type == "rbind" {
		return []string{mounts[0].Source}, nil
	}
	layers, err := overlay.GetOverlayLayers(mounts[0])
	slices.Reverse(layers)
	return layers, err
}

func release(ctx context.Context, r cache.ImmutableRef) {
	if err := r.Release(context.WithoutCancel(ctx)); err != nil {
		logrus.WithError(err).Warn("release a layer")
	}
}
