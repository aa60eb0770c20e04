package replay

import (
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/cache"
	cacheconfig "github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/util/compression"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/snapshot"
)

// A stored layer that was exported once has a blob. Its replay is a record of that blob on the new parent, so that it is not compressed, and not pushed, a second time.
// Only when a later step needs the files does BuildKit unpack it, and then the applier makes an alias of the stored layer in place of unpacking.

// rootRef is what a step writes to. When the step was replayed from a blob, it gives that record in its place.
type rootRef struct {
	cache.MutableRef
	step *step
}

func (r *rootRef) Commit(ctx context.Context) (cache.ImmutableRef, error) {
	r.step.mu.Lock()
	stored := r.step.stored
	r.step.stored = nil
	r.step.mu.Unlock()
	if stored == nil {
		return r.MutableRef.Commit(ctx)
	}
	if err := r.MutableRef.Release(context.WithoutCancel(ctx)); err != nil {
		logrus.WithError(err).Warn("release a snapshot that was not needed")
	}
	return stored, nil
}

// fromBlob finds the blob of a stored layer and makes a record of it on the step's parent; nil if there is no blob.
func (st *step) fromBlob(ctx context.Context, id string) (cache.ImmutableRef, error) {
	desc, err := st.r.blobOf(ctx, st.cm, id)
	if err != nil || desc.Digest == "" {
		return nil, err
	}
	cfg := cacheconfig.RefConfig{Compression: compression.New(compression.Default)}
	if _, err := st.parent.GetRemotes(ctx, true, cfg, false, st.session); err != nil {
		return nil, err
	}
	if err := st.r.noteBlob(desc.Digest, st.root.Lower[0], id); err != nil {
		return nil, err
	}
	return st.cm.GetByBlob(ctx, desc, st.parent, cache.WithDescription(st.description))
}

// blobOf looks for a record of a stored layer that has a blob.
func (r *Replayer) blobOf(ctx context.Context, cm cache.Manager, id string) (ocispecs.Descriptor, error) {
	keys, err := r.layers.Users(ctx, id)
	if err != nil {
		return ocispecs.Descriptor{}, err
	}
	for _, key := range keys { // "namespace/number/name": the name is the record's id, or that of a chain of layers
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

// noteBlob remembers that on this parent a blob stands for a stored layer. The blob alone would not say that: a layer's directory also has the directories
// that overlayfs copied up and that are as in the parent, which the blob leaves out. On another parent (of an image that was pulled and has an equal layer) they would be files too many.
func (r *Replayer) noteBlob(blob digest.Digest, parent snapshot.Directory, id string) error {
	if err := blob.Validate(); err != nil {
		return err
	}
	file := r.blobNote(blob, parent)
	if b, err := os.ReadFile(file); err == nil && string(b) == id {
		return nil
	}
	tmp := file + "." + newID() // several steps may note it at once
	if err := os.WriteFile(tmp, []byte(id), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}

func (r *Replayer) blobNote(blob digest.Digest, parent snapshot.Directory) string {
	return filepath.Join(r.blobs, blob.Encoded()+"-"+parent.Number)
}

// Applier returns an applier that takes a stored layer where it has one, and unpacks with inner otherwise.
func (r *Replayer) Applier(inner diff.Applier) diff.Applier { return applier{inner, r} }

type applier struct {
	diff.Applier
	r *Replayer
}

func (a applier) Apply(ctx context.Context, desc ocispecs.Descriptor, mounts []mount.Mount, opts ...diff.ApplyOpt) (ocispecs.Descriptor, error) {
	diffID, err := digest.Parse(desc.Annotations[labels.LabelUncompressed])
	if err == nil && len(mounts) == 1 {
		err := a.r.alias(ctx, desc.Digest, mounts[0])
		if err == nil {
			return ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayer, Digest: diffID}, nil
		}
		if !errors.Is(err, errdefs.ErrNotFound) {
			logrus.WithError(err).Warn("take a stored layer")
		}
	}
	return a.Applier.Apply(ctx, desc, mounts, opts...)
}

// alias makes the snapshot that is mounted for writing an alias of the stored layer of a blob. ErrNotFound says that there is none.
func (r *Replayer) alias(ctx context.Context, blob digest.Digest, m mount.Mount) error {
	dir := ""
	if m.Type == "bind" {
		dir = m.Source
	}
	for _, o := range m.Options {
		if upper, ok := strings.CutPrefix(o, "upperdir="); ok {
			dir = upper
		}
	}
	key, err := r.layers.Key(ctx, dir)
	if err != nil {
		return err
	}
	chain, err := r.layers.Chain(ctx, key)
	if err != nil {
		return err
	}
	if len(chain) < 2 {
		return errdefs.ErrNotFound
	}
	id, err := os.ReadFile(r.blobNote(blob, chain[1]))
	if err != nil {
		return errdefs.ErrNotFound
	}
	return r.layers.Alias(ctx, key, string(id))
}
