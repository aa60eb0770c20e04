package sharing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/stargz-snapshotter/estargz"
	cacheconfig "github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/util/progress"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/compress"
	"github.com/optbuild/optbuild/builder/engine/lazypull/tocfs"
	unpacking "github.com/optbuild/optbuild/builder/engine/unpack"
	"github.com/optbuild/optbuild/cache/remote"
)

// twinShare is which part of the cache's bound a layer may have at most that gets a twin.
const twinShare = 4

// twinless are the large layers of images that steps of the builds have in their roots or in mounts, which are here, and of which no cache has a twin. Those that have one in the scope that is written are in use.
func (e *exporter) twinless(ctx context.Context) (list []ocispecs.Descriptor) {
	seen := map[string]bool{}
	for _, b := range e.builds {
		b.mu.Lock()
		base := slices.Clone(b.images)
		for _, r := range b.ran {
			base = append(base, r.Base...)
		}
		b.mu.Unlock()
		for _, id := range base {
			if seen[id] {
				continue
			}
			seen[id] = true
			d, ok := e.large(ctx, id)
			if most := e.store.options.MaxBytes; most > 0 && d.Size > most/twinShare {
				continue // it would be dropped, or much else for it, and made again
			}
			if !ok || e.uses(b, kindTwin, twinKey(d.Annotations[labels.LabelUncompressed])) {
				continue
			}
			if info, err := e.caches.content.Info(ctx, d.Digest); err == nil && info.Labels[labelNoTwin] == "" {
				list = append(list, d)
			}
		}
	}
	return list
}

// large returns the blob of a record's layer if it is large, and has no table. Its annotation is the digest of its content.
func (e *exporter) large(ctx context.Context, id string) (d ocispecs.Descriptor, ok bool) {
	ref, err := e.get(ctx, id)
	if err != nil {
		return d, false
	}
	defer ref.Release(context.WithoutCancel(ctx))
	remotes, err := ref.GetRemotes(ctx, false, cacheconfig.RefConfig{Compression: e.Config().Compression}, false, e.session)
	if err != nil || len(remotes) == 0 || len(remotes[0].Descriptors) == 0 {
		return d, false
	}
	d = remotes[0].Descriptors[len(remotes[0].Descriptors)-1]
	return d, d.Size >= compress.LargeBytes && d.Annotations[estargz.TOCJSONDigestAnnotation] == "" && !images.IsNonDistributable(d.MediaType) && ref.GetLayerType() == ""
}

// uses is true if an index that the build has read has an entry, which is then one of those that it uses.
func (e *exporter) uses(b *build, kind, key string) bool {
	for _, r := range b.readings() {
		if found := r.index.Find(kind, key); len(found) > 0 {
			b.uses(found[0])
			return true
		}
	}
	return false
}

// twins makes the twins of layers, and sends them.
func (e *exporter) twins(ctx context.Context, layers []ocispecs.Descriptor) (entries []remote.Entry) {
	for _, d := range layers {
		done := progress.OneOff(ctx, fmt.Sprintf("sending layer %s of the base image, so that parts of it can be read", d.Digest))
		entry, err := e.makeTwin(ctx, d)
		if ctx.Err() != nil {
			_ = done(err)
			return entries
		}
		_ = done(nil)
		if err != nil {
			e.store.warn(fmt.Sprintf("it has no twin of layer %s: %v", d.Digest, err))
			continue
		}
		entries = append(entries, entry)
	}
	return entries
}

// labelNoTwin is the label of a blob of which no twin can be made: why.
const labelNoTwin = "optbuild.no-twin"

// makeTwin makes the twin of a layer in a temporary file: to the stores of this machine it is nothing.
func (e *exporter) makeTwin(ctx context.Context, d ocispecs.Descriptor) (entry remote.Entry, err error) {
	f, err := os.CreateTemp("", "twin-")
	if err != nil {
		return entry, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	parts, err := e.writeTwin(ctx, f, d)
	if err == nil && parts.Bytes > mostOfTwin(d.Size) {
		err = fmt.Errorf("it would have %d bytes", parts.Bytes)
	}
	if err == nil {
		err = checkTwin(ctx, f, parts)
	}
	if err != nil {
		var file *fs.PathError
		if ctx.Err() == nil && !errors.As(err, &file) { // it is the layer, and not the disk: nor can the next build make one
			info := content.Info{Digest: d.Digest, Labels: map[string]string{labelNoTwin: "yes"}}
			if _, uerr := e.caches.content.Update(ctx, info, "labels."+labelNoTwin); uerr != nil {
				err = errors.Join(err, uerr)
			}
		}
		return entry, err
	}
	blob := ocispecs.Descriptor{MediaType: mediaTypeTwin, Digest: parts.Blob, Size: parts.Bytes}
	if err := e.store.Push(ctx, blob, file(f.Name()), nil); err != nil {
		return entry, err
	}
	return remote.Entry{Kind: kindTwin, Key: twinKey(parts.DiffID.String()), Created: now(), Blob: blob, Note: map[string]string{
		noteDiffID: parts.DiffID.String(), noteTOC: parts.TOC.String(), noteTwinOf: d.Digest.String(),
	}}, nil
}

// writeTwin writes a layer's content, which is compared with its digest.
func (e *exporter) writeTwin(ctx context.Context, f *os.File, d ocispecs.Descriptor) (parts compress.Parts, err error) {
	ra, err := e.caches.content.ReaderAt(ctx, d)
	if err != nil {
		return parts, err
	}
	defer ra.Close()
	tar, err := unpacking.Open(contextReader{ctx, content.NewReader(ra)})
	if err != nil {
		return parts, err
	}
	defer tar.Close()
	if parts, err = compress.WriteParts(f, tar, compress.Options{}); err != nil {
		return parts, err
	}
	if want := d.Annotations[labels.LabelUncompressed]; parts.DiffID.String() != want {
		return parts, fmt.Errorf("its content is %s, and not %s", parts.DiffID, want)
	}
	return parts, nil
}

// checkTwin opens a twin as those will who mount it.
func checkTwin(ctx context.Context, f *os.File, p compress.Parts) error {
	dir, err := os.MkdirTemp("", "twin-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l, err := tocfs.Open(ctx, fileSource{f}, tocfs.Options{Digest: p.Blob, Bytes: p.Bytes, TOC: p.TOC, Cache: dir})
	if err != nil {
		return fmt.Errorf("it could not be read in parts: %w", err)
	}
	return l.Close()
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.Reader.Read(p)
}

// file is the provider of one blob.
type file string

func (f file) ReaderAt(context.Context, ocispecs.Descriptor) (content.ReaderAt, error) {
	return local.OpenReader(string(f))
}

type fileSource struct{ io.ReaderAt }

func (s fileSource) Fetch(_ context.Context, off, size int64) (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(s, off, size)), nil
}
