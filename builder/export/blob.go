package export

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/util/compression"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
)

// writeBlob compresses what tar writes into the content store. A lease must be in the context: the blob is held by that alone. Two calls with one name wait for each other.
func writeBlob(ctx context.Context, store content.Store, comp compression.Config, name string, tar func(io.Writer) error) (desc ocispecs.Descriptor, err error) {
	compress, finalize := comp.Type.Compress(ctx, comp)
	mediaType := comp.Type.MediaType()
	w, err := content.OpenWriter(ctx, store, content.WithRef(name), content.WithDescriptor(ocispecs.Descriptor{MediaType: mediaType}))
	if err != nil {
		return desc, fmt.Errorf("open blob: %w", err)
	}
	defer func() {
		if cerr := w.Close(); err == nil && cerr != nil {
			err = cerr
		}
		if err != nil {
			if err := store.Abort(context.WithoutCancel(ctx), name); err != nil && !errdefs.IsNotFound(err) {
				logrus.WithError(err).Warn("drop a layer that was not finished")
			}
		}
	}()
	if err := w.Truncate(0); err != nil { // of a process that was killed
		return desc, fmt.Errorf("begin blob: %w", err)
	}
	buffered := bufio.NewWriterSize(w, 128<<10)
	plain := digest.Canonical.Digester()
	sink := io.WriteCloser(nopCloser{buffered})
	if compress != nil {
		if sink, err = compress(buffered, mediaType); err != nil {
			return desc, fmt.Errorf("compress layer: %w", err)
		}
	}
	if err := tar(io.MultiWriter(sink, plain.Hash())); err != nil {
		_ = sink.Close() // some compressors have goroutines
		return desc, fmt.Errorf("write layer: %w", err)
	}
	if err := sink.Close(); err != nil {
		return desc, fmt.Errorf("compress layer: %w", err)
	}
	if err := buffered.Flush(); err != nil {
		return desc, fmt.Errorf("write layer: %w", err)
	}
	dgst := w.Digest()
	diffID := plain.Digest().String()
	if err := w.Commit(ctx, 0, dgst, content.WithLabels(map[string]string{labels.LabelUncompressed: diffID})); err != nil && !errdefs.IsAlreadyExists(err) {
		return desc, fmt.Errorf("store layer: %w", err)
	}
	info, err := store.Info(ctx, dgst)
	if err != nil {
		return desc, fmt.Errorf("look up layer: %w", err)
	}
	if info.Labels[labels.LabelUncompressed] == "" { // it was there, from somewhere else
		info.Labels = map[string]string{labels.LabelUncompressed: diffID}
		if _, err := store.Update(ctx, info, "labels."+labels.LabelUncompressed); err != nil {
			return desc, fmt.Errorf("label layer: %w", err)
		}
	}
	desc = ocispecs.Descriptor{MediaType: mediaType, Digest: dgst, Size: info.Size, Annotations: map[string]string{labels.LabelUncompressed: diffID}}
	if finalize != nil {
		a, err := finalize(ctx, store)
		if err != nil {
			return desc, fmt.Errorf("finish layer: %w", err)
		}
		maps.Copy(desc.Annotations, a)
	}
	return desc, nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
