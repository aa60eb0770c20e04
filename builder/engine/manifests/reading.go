package manifests

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/content"
	cacheimporttypes "github.com/moby/buildkit/cache/remotecache/v1/types"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/engine/chains"
)

// maxBlobs is how many blobs of an import are read: an index of 30 platforms with attestations needs 120. Their bytes and values are bounded as those of one index elsewhere are
// (chains.MaxBytes, chains.MaxValues).
const maxBlobs = 1000

// reading is what one import reads before it knows what the cache has: indexes, manifests, configs of images and caches. All of it is bounded together, since BuildKit holds it together.
//
// Which of these a blob is can't be told by its media type: BuildKit goes by where it is named, and what it has. So each is looked at as all that it could be.
type reading struct {
	check chains.Check
	ended atomic.Bool // what is read now are layers

	mu     sync.Mutex
	blobs  int
	bytes  int64
	values int
	all    cacheimporttypes.CacheConfig // what all chains that were read have together, as far as check sees it
}

// open opens a blob with fetch. Until the reading has ended it has been read and looked at then.
func (r *reading) open(ctx context.Context, d ocispecs.Descriptor, fetch func(context.Context, ocispecs.Descriptor) (content.ReaderAt, error)) (content.ReaderAt, error) {
	if r.ended.Load() {
		return fetch(ctx, d)
	}
	if err := sound(d); err != nil {
		return nil, err
	}
	if err := r.take(d.Size, 1); err != nil { // before anything is asked for
		return nil, fmt.Errorf("%s: %w", d.Digest, err)
	}
	from, err := fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	text, err := r.read(from, d)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Digest, err)
	}
	return blob{bytes.NewReader(text)}, nil
}

// read reads a blob whose stated size was taken. A directory's may have another one.
func (r *reading) read(from content.ReaderAt, d ocispecs.Descriptor) ([]byte, error) {
	size := from.Size()
	if size < 0 {
		return nil, errors.New("its size is not known")
	}
	if err := r.take(size-d.Size, 0); err != nil {
		return nil, err
	}
	text := make([]byte, size)
	if n, err := io.ReadFull(content.NewReader(from), text); err != nil {
		return nil, fmt.Errorf("read %d of %d bytes: %w", n, size, err)
	}
	if is := d.Digest.Algorithm().FromBytes(text); is != d.Digest {
		return nil, fmt.Errorf("what is there is %s", is)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return text, r.look(text)
}

// take counts what is about to be read.
func (r *reading) take(size int64, blobs int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs += blobs
	if size > chains.MaxBytes-r.bytes {
		return fmt.Errorf("with its %d bytes what describes the cache is larger than %d MiB", size, chains.MaxBytes>>20)
	}
	r.bytes += size
	if r.blobs > maxBlobs {
		return fmt.Errorf("more than %d blobs describe the cache", maxBlobs)
	}
	return nil
}

// look is an error if BuildKit is not to see a blob. What BuildKit can't decode as what it takes it for it refuses itself: so what is not decoded here has not to be looked at.
func (r *reading) look(text []byte) error {
	if r.values += chains.Count(text); r.values > chains.MaxValues {
		return fmt.Errorf("what describes the cache has more than %d values", chains.MaxValues)
	}
	var index ocispecs.Index
	if json.Unmarshal(text, &index) == nil {
		if err := r.named(index.Manifests...); err != nil {
			return err
		}
	}
	var manifest ocispecs.Manifest
	if json.Unmarshal(text, &manifest) == nil && manifest.Config.Digest != "" { // without a config it is none
		if err := errors.Join(r.named(manifest.Config), r.named(manifest.Layers...)); err != nil {
			return err
		}
	}
	var config cacheimporttypes.CacheConfig
	if json.Unmarshal(text, &config) == nil && len(config.Records) > 0 {
		for _, l := range config.Layers {
			if err := l.Blob.Validate(); err != nil {
				return fmt.Errorf("layer %q: %w", l.Blob, err)
			}
		}
		if err := r.add(config); err != nil {
			return err
		}
	}
	var image image
	if json.Unmarshal(text, &image) == nil && image.Cache != nil {
		return r.inline(image)
	}
	return nil
}

// named looks at descriptors that a blob has. The content of some is there with them, and is not asked for.
func (r *reading) named(list ...ocispecs.Descriptor) error {
	for _, d := range list {
		if err := sound(d); err != nil {
			return err
		}
		if len(d.Data) > 0 {
			if err := r.look(d.Data); err != nil {
				return fmt.Errorf("%s: %w", d.Digest, err)
			}
		}
	}
	return nil
}

// sound is an error for a descriptor whose digest or size is none: some of what uses them panics.
func sound(d ocispecs.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("blob %q: %w", d.Digest, err)
	}
	if d.Size < 0 {
		return fmt.Errorf("%s: its size is %d", d.Digest, d.Size)
	}
	return nil
}

// image is the part of an image's config with an inline cache.
type image struct {
	RootFS struct {
		DiffIDs []digest.Digest `json:"diff_ids"`
	} `json:"rootfs"`
	History []struct {
		EmptyLayer bool `json:"empty_layer"`
	} `json:"history"`
	Cache []byte `json:"moby.buildkit.cache.v0"`
}

// inline looks at an inline cache: its layers are those of the image, each on the one before.
func (r *reading) inline(image image) error {
	if r.values += chains.Count(image.Cache); r.values > chains.MaxValues {
		return fmt.Errorf("what describes the cache has more than %d values", chains.MaxValues)
	}
	var config cacheimporttypes.CacheConfig
	if err := json.Unmarshal(image.Cache, &config.Records); err != nil {
		return fmt.Errorf("its inline cache is damaged: %w", err)
	}
	made := 0 // layers that the history has
	for _, h := range image.History {
		if !h.EmptyLayer {
			made++
		}
	}
	if n := len(image.RootFS.DiffIDs); made < n { // BuildKit takes the times of all layers from there
		return fmt.Errorf("its history has %d layers, but it has %d", made, n)
	}
	for i := range image.RootFS.DiffIDs {
		config.Layers = append(config.Layers, cacheimporttypes.CacheLayer{ParentIndex: i - 1})
	}
	return r.add(config)
}

// add checks chains, together with those that were read before: an index can have many images.
func (r *reading) add(config cacheimporttypes.CacheConfig) error {
	first := len(r.all.Layers)
	moved := func(i int) int {
		if i < 0 || i >= len(config.Layers) {
			return -1
		}
		return first + i
	}
	for _, l := range config.Layers {
		r.all.Layers = append(r.all.Layers, cacheimporttypes.CacheLayer{ParentIndex: moved(l.ParentIndex)})
	}
	for _, c := range config.Records {
		of := cacheimporttypes.CacheRecord{ChainedResults: c.ChainedResults}
		for _, res := range c.Results {
			of.Results = append(of.Results, cacheimporttypes.CacheResult{LayerIndex: moved(res.LayerIndex)})
		}
		r.all.Records = append(r.all.Records, of)
	}
	return r.check(&r.all)
}

// blob is one that was read.
type blob struct{ *bytes.Reader }

func (blob) Close() error { return nil }
