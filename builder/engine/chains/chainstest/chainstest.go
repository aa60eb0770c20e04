// Package chainstest writes and reads caches of steps in tests: what BuildKit's solver and worker would, without them.
package chainstest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/cache/remotecache"
	cacheimporttypes "github.com/moby/buildkit/cache/remotecache/v1/types"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/worker"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/engine/chains"
)

// Anything is a check that refuses nothing.
func Anything(*cacheimporttypes.CacheConfig) error { return nil }

// memory provides one layer.
type memory []byte

func (m memory) ReaderAt(context.Context, ocispecs.Descriptor) (content.ReaderAt, error) {
	return memoryReader{bytes.NewReader(m)}, nil
}

func (m memory) Info(_ context.Context, d digest.Digest) (content.Info, error) {
	return content.Info{Digest: d, Size: int64(len(m))}, nil
}

type memoryReader struct{ *bytes.Reader }

func (memoryReader) Close() error { return nil }

// Describe is the layer that a step has made, which is its name.
func Describe(layer string) ocispecs.Descriptor {
	return ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerGzip, Digest: digest.FromString(layer), Size: int64(len(layer)),
		Annotations: map[string]string{labels.LabelUncompressed: digest.FromString("in " + layer).String(), chains.CreatedAt: "2026-01-02T03:04:05Z"}}
}

// Write exports a cache in which each step has made the layer that is its name.
func Write(t *testing.T, e remotecache.Exporter, steps ...string) error {
	t.Helper()
	for _, step := range steps {
		remote := &solver.Remote{Descriptors: []ocispecs.Descriptor{Describe(step)}, Provider: memory(step)}
		if _, _, err := e.Add(digest.FromString(digest.FromString(step).String()+"@0"), nil, []solver.CacheExportResult{{CreatedAt: time.Unix(1, 0), Result: remote}}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := e.Finalize(t.Context())
	return err
}

// Reading is a worker that takes results of caches, and reads them.
type Reading struct {
	worker.Worker
	Layers []ocispecs.Descriptor
	Texts  []string
}

var errRead = errors.New("it was read")

func (w *Reading) FromRemote(ctx context.Context, r *solver.Remote) (cache.ImmutableRef, error) {
	for _, d := range r.Descriptors {
		reader, err := r.Provider.ReaderAt(ctx, d)
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(content.NewReader(reader))
		if err := errors.Join(err, reader.Close()); err != nil {
			return nil, err
		}
		w.Layers, w.Texts = append(w.Layers, d), append(w.Texts, string(b))
	}
	return nil, errRead
}

// Read returns the layers that steps have made by a cache; steps that it does not know have none.
func Read(t *testing.T, resolve remotecache.ResolveCacheImporterFunc, attrs map[string]string, steps ...string) (*Reading, error) {
	t.Helper()
	w := &Reading{}
	i, desc, err := resolve(t.Context(), nil, attrs)
	if err != nil {
		return w, err
	}
	m, err := i.Resolve(t.Context(), desc, "cache", w)
	if err != nil {
		return w, err
	}
	for _, step := range steps {
		keys, err := m.Query(nil, 0, digest.FromString(step), 0)
		if err != nil {
			return w, err
		}
		for _, k := range keys {
			records, err := m.Records(t.Context(), k)
			if err != nil {
				return w, err
			}
			for _, r := range records {
				if _, err := m.Load(t.Context(), r); !errors.Is(err, errRead) {
					return w, err
				}
			}
		}
	}
	return w, nil
}
