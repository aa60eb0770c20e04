package oracle

import (
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
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
	layers map[v1.Hash]*layer // by the digest of the archive as it is stored
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
		read, err := r.layer(l)
		if err != nil {
			return nil, err
		}
		out.Layers = append(out.Layers, read.id.String())
		content = append(content, read)
	}
	if out.Tree, err = flatten(content); err != nil {
		return nil, err
	}
	return out, nil
}

func (r *Reader) layer(l v1.Layer) (*layer, error) {
	stored, err := l.Digest()
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	read := r.layers[stored]
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
	if read.id, err = l.DiffID(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.layers == nil {
		r.layers = map[v1.Hash]*layer{}
	}
	r.layers[stored] = read
	return read, nil
}
