package backends

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	cerrdefs "github.com/containerd/errdefs"
	v1 "github.com/moby/buildkit/cache/remotecache/v1"
	cacheimporttypes "github.com/moby/buildkit/cache/remotecache/v1/types"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/worker"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/engine/chains"
)

// bucket is where a cloud keeps a cache: objects by their keys.
type bucket interface {
	// open reads an object from an offset on. The error is cerrdefs.ErrNotFound if there is none.
	open(ctx context.Context, key string, offset int64) (io.ReadCloser, error)
	// look is an error if it is known that there is no such object.
	look(ctx context.Context, key string) error

	indexKey(name string) string
	layerKey(digest.Digest) string
}

// importer reads the indexes of a cache.
type importer struct {
	bucket bucket
	names  []string // of the indexes
	check  chains.Check
}

// Resolve makes one cache of all indexes. One that does not exist has nothing.
func (i *importer) Resolve(ctx context.Context, _ ocispecs.Descriptor, id string, w worker.Worker) (solver.CacheManager, error) {
	all := v1.NewCacheChains()
	for _, name := range i.names {
		index, err := i.index(ctx, i.bucket.indexKey(name))
		if err == nil {
			err = chains.Add(index, i.check, i.provide, all)
		}
		if err != nil {
			return nil, fmt.Errorf("index %s: %w", name, err)
		}
	}
	keys, results, err := v1.NewCacheKeyStorage(all, w)
	if err != nil {
		return nil, err
	}
	return solver.NewCacheManager(ctx, id, keys, results), nil
}

func (i *importer) index(ctx context.Context, key string) (*cacheimporttypes.CacheConfig, error) {
	body, err := i.bucket.open(ctx, key, 0)
	if cerrdefs.IsNotFound(err) {
		return &cacheimporttypes.CacheConfig{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b := &chains.Buffer{}
	if _, err := io.Copy(b, body); err != nil {
		return nil, err
	}
	return b.Decode()
}

func (i *importer) provide(d ocispecs.Descriptor) v1.DescriptorProviderPair {
	l := &layer{bucket: i.bucket, desc: d}
	return v1.DescriptorProviderPair{Descriptor: d, Provider: l, InfoProvider: l}
}

// layer provides one layer. What it reads is checked against its digest by who asks for it.
type layer struct {
	bucket bucket
	desc   ocispecs.Descriptor

	mu    sync.Mutex
	there bool // it was looked for and found
}

func (l *layer) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	if d != l.desc.Digest {
		return content.Info{}, fmt.Errorf("layer %s: %w", d, cerrdefs.ErrNotFound)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.there {
		if err := l.bucket.look(ctx, l.bucket.layerKey(d)); err != nil {
			return content.Info{}, err
		}
		l.there = true
	}
	return content.Info{Digest: d, Size: l.desc.Size}, nil
}

func (l *layer) ReaderAt(ctx context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	key := l.bucket.layerKey(d.Digest)
	r := &reader{size: d.Size, open: func(offset int64) (io.ReadCloser, error) { return l.bucket.open(ctx, key, offset) }}
	var err error
	r.body, err = r.open(0) // who asks is told at once that it is gone
	return r, err
}

// reader reads a layer in one request as long as it is read from the beginning to the end. Of what follows the size that its index has told it reads nothing.
type reader struct {
	size int64
	open func(offset int64) (io.ReadCloser, error)

	mu   sync.Mutex
	body io.ReadCloser // nil: none is open
	next int64         // where it is
}

func (r *reader) Size() int64 { return r.size }

func (r *reader) ReadAt(p []byte, off int64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if off >= r.size {
		return 0, io.EOF
	}
	if r.body == nil || off != r.next {
		if err := r.end(); err != nil {
			return 0, err
		}
		body, err := r.open(off)
		if err != nil {
			return 0, err
		}
		r.body, r.next = body, off
	}
	wanted := len(p)
	p = p[:min(int64(wanted), r.size-off)]
	n, err := io.ReadFull(r.body, p)
	r.next += int64(n)
	if errors.Is(err, io.ErrUnexpectedEOF) || err == nil && n < wanted {
		err = io.EOF
	}
	return n, err
}

func (r *reader) end() error {
	if r.body == nil {
		return nil
	}
	body := r.body
	r.body = nil
	return body.Close()
}

func (r *reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.end()
}

// maxRefusal is how much of an answer is read that is not what was asked for. Clouds' clients read all of it into memory, to find the error's name in it.
const maxRefusal = 1 << 20

// refusals is a client of a cloud's client, in which the answers that say no have an end.
type refusals struct {
	client interface {
		Do(*http.Request) (*http.Response, error)
	}
}

// Do sends a request.
func (c refusals) Do(r *http.Request) (*http.Response, error) {
	resp, err := c.client.Do(r)
	if err == nil && resp.StatusCode >= http.StatusMultipleChoices {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxRefusal), resp.Body}
	}
	return resp, err
}
