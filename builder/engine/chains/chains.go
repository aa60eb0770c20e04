// Package chains reads indexes of caches outside of registries: BuildKit's cache chains as JSON, with what must be known of each layer (types gha, s3, azblob).
//
// An index comes from whoever may write to the cache, and from a service that may send anything. It is bounded before it is understood: in bytes while it is read, in values before
// it becomes objects, and in what BuildKit would make of it by a check that its reader brings along.
package chains

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/labels"
	v1 "github.com/moby/buildkit/cache/remotecache/v1"
	cacheimporttypes "github.com/moby/buildkit/cache/remotecache/v1/types"
	"github.com/moby/buildkit/util/compression"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Bounds of an index.
const (
	MaxBytes = 64 << 20

	// MaxValues is how many values JSON has at most. The shortest ones are a hundred times as large in memory.
	MaxValues = 1 << 20
)

// CreatedAt is BuildKit's annotation with the time at which a layer was made.
const CreatedAt = "buildkit/createdat"

// Check is an error if an index would become too much in memory, or is not to be used.
type Check func(*cacheimporttypes.CacheConfig) error

// Buffer takes the bytes of an index, and refuses more than MaxBytes. The zero value is empty. Its buffer is not embedded: its ReadFrom would take anything.
type Buffer struct {
	text bytes.Buffer
}

func (b *Buffer) Write(p []byte) (int, error) {
	if b.text.Len()+len(p) > MaxBytes {
		return 0, fmt.Errorf("it is larger than %d MiB", MaxBytes>>20)
	}
	return b.text.Write(p)
}

// Decode reads an index of the bytes that were taken.
func (b *Buffer) Decode() (*cacheimporttypes.CacheConfig, error) {
	if err := Values(b.text.Bytes()); err != nil {
		return nil, err
	}
	index := &cacheimporttypes.CacheConfig{}
	return index, json.Unmarshal(b.text.Bytes(), index)
}

// Values is an error if JSON has so many values that it would take much more memory than its bytes.
func Values(text []byte) error {
	if Count(text) > MaxValues {
		return fmt.Errorf("it has more than %d values", MaxValues)
	}
	return nil
}

// Count is how many values JSON has at most, but for one.
func Count(text []byte) (values int) {
	for _, mark := range []string{",", "{", "["} {
		values += bytes.Count(text, []byte(mark))
	}
	return values
}

// Provide is what reads a layer that was described.
type Provide func(ocispecs.Descriptor) v1.DescriptorProviderPair

// Add adds what an index says to chains, unless check refuses it.
func Add(index *cacheimporttypes.CacheConfig, check Check, provide Provide, to *v1.CacheChains) error {
	if err := check(index); err != nil {
		return err
	}
	layers := v1.DescriptorProvider{}
	for _, l := range index.Layers {
		d, err := descriptor(l)
		if err != nil {
			return err
		}
		layers[l.Blob] = provide(d)
	}
	return v1.ParseConfig(*index, layers, to)
}

// descriptor is a layer as BuildKit's worker wants it described.
func descriptor(l cacheimporttypes.CacheLayer) (d ocispecs.Descriptor, err error) {
	a := l.Annotations
	if a == nil {
		return d, fmt.Errorf("nothing is said of layer %q", l.Blob)
	}
	_, err = compression.FromMediaType(a.MediaType)
	if err := errors.Join(err, l.Blob.Validate(), a.DiffID.Validate()); err != nil || a.Size < 0 || images.IsNonDistributable(a.MediaType) {
		return d, fmt.Errorf("layer %q is none", l.Blob)
	}
	d = ocispecs.Descriptor{MediaType: a.MediaType, Digest: l.Blob, Size: a.Size, Annotations: map[string]string{labels.LabelUncompressed: a.DiffID.String()}}
	if !a.CreatedAt.IsZero() {
		b, err := a.CreatedAt.MarshalText()
		if err != nil {
			return d, err
		}
		d.Annotations[CreatedAt] = string(b)
	}
	return d, nil
}
