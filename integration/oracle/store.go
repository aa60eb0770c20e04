package oracle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Open returns the images that have the digest in an OCI layout, or in a content store that has a layout's blobs but no index of
// its own: by platform, or one without a name if the digest is that of an image and not of an index. Attestations are left out.
func Open(dir, digest string) (map[string]v1.Image, error) {
	h, err := v1.NewHash(digest)
	if err != nil {
		return nil, err
	}
	s := store(dir)
	raw, err := s.read(h)
	if err != nil {
		return nil, err
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	if !index.MediaType.IsIndex() {
		img, err := s.image(raw)
		return map[string]v1.Image{"": img}, err
	}
	images := map[string]v1.Image{}
	for _, d := range index.Manifests {
		name := ""
		if d.Platform != nil {
			name = d.Platform.String()
		}
		if d.Platform != nil && d.Platform.OS == "unknown" { // an attestation
			continue
		}
		if _, twice := images[name]; twice {
			return nil, fmt.Errorf("two images for the platform %q", name)
		}
		raw, err := s.read(d.Digest)
		if err != nil {
			return nil, err
		}
		if images[name], err = s.image(raw); err != nil {
			return nil, err
		}
	}
	if len(images) == 0 {
		return nil, errors.New("an index without images")
	}
	return images, nil
}

// Layout opens an OCI layout that holds one image, or one index.
func Layout(dir string) (map[string]v1.Image, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		return nil, err
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	if len(index.Manifests) != 1 {
		return nil, fmt.Errorf("%s holds %d images, want 1", dir, len(index.Manifests))
	}
	return Open(dir, index.Manifests[0].Digest.String())
}

// store is a directory with blobs.
type store string

func (s store) file(h v1.Hash) string { return filepath.Join(string(s), "blobs", h.Algorithm, h.Hex) }

func (s store) read(h v1.Hash) ([]byte, error) { return os.ReadFile(s.file(h)) }

func (s store) image(manifest []byte) (v1.Image, error) {
	m, err := v1.ParseManifest(bytes.NewReader(manifest))
	if err != nil {
		return nil, err
	}
	return partial.CompressedToImage(&stored{s, manifest, m})
}

// stored is an image in a store.
type stored struct {
	store    store
	raw      []byte
	manifest *v1.Manifest
}

func (i *stored) MediaType() (types.MediaType, error) { return i.manifest.MediaType, nil }
func (i *stored) RawManifest() ([]byte, error)        { return i.raw, nil }
func (i *stored) RawConfigFile() ([]byte, error)      { return i.store.read(i.manifest.Config.Digest) }

func (i *stored) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	for _, d := range i.manifest.Layers {
		if d.Digest == h {
			return &blob{i.store, d}, nil
		}
	}
	return nil, fmt.Errorf("no layer %s in the manifest", h)
}

// blob is a layer in a store.
type blob struct {
	store store
	desc  v1.Descriptor
}

func (b *blob) Digest() (v1.Hash, error)            { return b.desc.Digest, nil }
func (b *blob) Size() (int64, error)                { return b.desc.Size, nil }
func (b *blob) MediaType() (types.MediaType, error) { return b.desc.MediaType, nil }
func (b *blob) Compressed() (io.ReadCloser, error)  { return os.Open(b.store.file(b.desc.Digest)) }
