package store

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/estargz/zstdchunked"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// LazyLayer says whether a layer can be pulled lazily: file by file, when a container that runs already looks at it.
type LazyLayer struct {
	Digest    digest.Digest
	MediaType string
	Bytes     int64
	Lazy      bool
	// Why is what is in the way; "" if nothing is.
	Why string `json:",omitempty"`
	// Files is how many entries the table of contents has.
	Files int `json:",omitempty"`
}

// Lazy looks at the layers of an image of the store or, if it is not there, at its registry, of which it reads the layers' tables of contents only.
func (s *Store) Lazy(ctx context.Context, ref string, p *ocispecs.Platform) (layers []LazyLayer, err error) {
	image, err := s.Open(ctx, ref, p)
	if errors.Is(err, ErrNoImage) {
		if _, nameErr := ParseName(ref); nameErr == nil {
			image, err = s.OpenRemote(ctx, ref)
		}
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := image.Close(); err == nil {
			err = cerr
		}
	}()
	match := platforms.Default()
	if p != nil {
		match = platforms.OnlyStrict(*p)
	}
	m, err := images.Manifest(ctx, image.Blobs, image.Target, match)
	if err != nil {
		return nil, fmt.Errorf("inspect %s: %w", ref, err)
	}
	for _, d := range m.Layers {
		l := LazyLayer{Digest: d.Digest, MediaType: d.MediaType, Bytes: d.Size}
		if l.Files, l.Why, err = lazily(ctx, image.Blobs, d); err != nil {
			return nil, fmt.Errorf("inspect layer %s of %s: %w", d.Digest, ref, err)
		}
		l.Lazy = l.Why == ""
		layers = append(layers, l)
	}
	return layers, nil
}

// lazily says why a layer can't be pulled lazily. What it checks is what the snapshotter needs: the annotation in the manifest, and the table that it is about.
func lazily(ctx context.Context, blobs content.Provider, d ocispecs.Descriptor) (files int, why string, err error) {
	switch d.MediaType {
	case ocispecs.MediaTypeImageLayerGzip, ocispecs.MediaTypeImageLayerZstd:
	case images.MediaTypeDockerSchema2LayerGzip:
		return 0, "its media type is docker's, whose manifests have no annotations", nil
	case ocispecs.MediaTypeImageLayer, images.MediaTypeDockerSchema2Layer:
		return 0, "it is not compressed, and has no table of contents", nil
	case images.MediaTypeDockerSchema2LayerZstd:
		return 0, "its media type is docker's, whose manifests have no annotations", nil
	default:
		return 0, "its media type is " + d.MediaType, nil
	}
	told, annotated := d.Annotations[estargz.TOCJSONDigestAnnotation]
	r, err := blobs.ReaderAt(ctx, d)
	if err != nil {
		return 0, "", err
	}
	defer r.Close()
	opened, openErr := estargz.Open(io.NewSectionReader(r, 0, d.Size), estargz.WithDecompressors(new(zstdchunked.Decompressor)))
	plain := "gzip"
	if d.MediaType == ocispecs.MediaTypeImageLayerZstd {
		plain = "zstd"
	}
	switch {
	case ctx.Err() != nil:
		return 0, "", ctx.Err()
	case openErr != nil && !annotated:
		return 0, "it is plain " + plain + ": one stream, of which a part can't be read", nil
	case openErr != nil:
		return 0, "its table of contents can't be read: " + openErr.Error(), nil
	case !annotated:
		return 0, "its manifest lacks the annotation " + estargz.TOCJSONDigestAnnotation, nil
	case plain == "zstd" && d.Annotations[zstdchunked.ManifestPositionAnnotation] == "":
		return 0, "its manifest lacks the annotation " + zstdchunked.ManifestPositionAnnotation, nil
	case opened.TOCDigest().String() != told:
		return 0, "its table of contents is not the one that the manifest names", nil
	}
	if _, err := opened.VerifyTOC(digest.Digest(told)); err != nil {
		return 0, "its table of contents does not hold for all files: " + err.Error(), nil
	}
	root, ok := opened.Lookup("")
	if !ok {
		return 0, "its table of contents has no root", nil
	}
	return count(root), "", nil
}

func count(e *estargz.TOCEntry) (n int) {
	e.ForeachChild(func(_ string, child *estargz.TOCEntry) bool {
		n += 1 + count(child)
		return true
	})
	return n
}
