package oracle

import (
	"errors"
	"fmt"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Image is an image that was read.
type Image struct {
	// Config is the configuration as it was written, byte for byte.
	Config []byte
	// Layers are the digests of the layers' archives before compression, the lowest first.
	Layers []string
	Tree   Tree
}

// Reader reads images and remembers their layers, because most images of a test have most of theirs in common. The zero value
// is ready, and may be used concurrently.
type Reader struct {
	mu     sync.Mutex
	layers map[v1.Hash]*layer
}

// Layout returns the images of an OCI layout, by platform, "" where an image has none in the index. Attestations are left out.
func Layout(dir string) (map[string]v1.Image, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	if len(m.Manifests) != 1 {
		return nil, fmt.Errorf("%s holds %d images, want 1", dir, len(m.Manifests))
	}
	return Platforms(index, m.Manifests[0].Digest)
}

// Platforms returns the images of what has the digest in an index: an image, or an index of images.
func Platforms(index v1.ImageIndex, digest v1.Hash) (map[string]v1.Image, error) {
	if img, err := index.Image(digest); err == nil {
		if mt, err := img.MediaType(); err != nil || mt.IsImage() {
			return map[string]v1.Image{"": img}, err
		}
	}
	inner, err := index.ImageIndex(digest)
	if err != nil {
		return nil, err
	}
	m, err := inner.IndexManifest()
	if err != nil {
		return nil, err
	}
	images := map[string]v1.Image{}
	for _, d := range m.Manifests {
		if d.Platform != nil && d.Platform.OS == "unknown" { // an attestation
			continue
		}
		name := ""
		if d.Platform != nil {
			name = d.Platform.String()
		}
		if _, twice := images[name]; twice {
			return nil, fmt.Errorf("two images for the platform %q", name)
		}
		if images[name], err = inner.Image(d.Digest); err != nil {
			return nil, err
		}
	}
	if len(images) == 0 {
		return nil, errors.New("an index without images")
	}
	return images, nil
}

// Archive opens an image in an archive as docker save writes it.
func Archive(file string) (v1.Image, error) { return tarball.ImageFromPath(file, nil) }

// Read reads an image.
func (r *Reader) Read(img v1.Image) (*Image, error) {
	config, err := img.RawConfigFile()
	if err != nil {
		return nil, err
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	out := &Image{Config: config}
	var content []*layer
	for _, l := range layers {
		id, err := l.DiffID()
		if err != nil {
			return nil, err
		}
		read, err := r.layer(id, l)
		if err != nil {
			return nil, err
		}
		out.Layers = append(out.Layers, id.String())
		content = append(content, read)
	}
	if out.Tree, err = flatten(content); err != nil {
		return nil, err
	}
	return out, nil
}

func (r *Reader) layer(id v1.Hash, l v1.Layer) (*layer, error) {
	r.mu.Lock()
	read := r.layers[id]
	r.mu.Unlock()
	if read != nil {
		return read, nil
	}
	content, err := l.Uncompressed()
	if err != nil {
		return nil, err
	}
	defer content.Close()
	if read, err = readLayer(content); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.layers == nil {
		r.layers = map[v1.Hash]*layer{}
	}
	r.layers[id] = read
	return read, nil
}
