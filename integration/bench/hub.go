package main

import (
	"context"
	"io"
	"log"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/optbuild/optbuild/integration/bases"
	"github.com/optbuild/optbuild/integration/wan"
)

// hub is the registry. It counts what it is asked and sent, and can forget all that it has.
type hub struct {
	handler atomic.Pointer[http.Handler]
	uploads atomic.Int64
	proxy   *wan.Proxy // counts; in front of handler
}

func newHub() *hub {
	h := &hub{}
	h.empty()
	h.proxy = wan.NewProxy(h.uncounted())
	return h
}

// uncounted is the registry for those who look at it from aside.
func (h *hub) uncounted() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*h.handler.Load()).ServeHTTP(w, r) })
}

// quiet is a registry that logs nothing.
func quiet(options ...registry.Option) http.Handler {
	return registry.New(append(options, registry.Logger(log.New(io.Discard, "", 0)))...)
}

func (h *hub) empty() {
	handler := quiet()
	h.handler.Store(&handler)
}

func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if sendsBlob(r) {
		h.uploads.Add(1)
	}
	h.proxy.ServeHTTP(w, r)
}

// sendsBlob is true of the request that ends the upload of a blob: one a blob, in whatever way it is sent. A mount from another repository sends
// nothing.
func sendsBlob(r *http.Request) bool {
	return strings.Contains(r.URL.Path, "/blobs/uploads/") && r.URL.Query().Has("digest") &&
		(r.Method == http.MethodPut || r.Method == http.MethodPost)
}

// offer pushes a base image.
func (b *bench) offer(ctx context.Context, image bases.Base) error {
	b.images = append(b.images, image)
	return image.Push(ctx, b.registry)
}

// emptyRegistry leaves only base images in the registry, so that a push has to send all that a build made.
func (b *bench) emptyRegistry(ctx context.Context) error {
	clear(b.warm)
	b.hub.empty()
	for _, image := range b.images {
		if err := image.Push(ctx, b.registry); err != nil {
			return err
		}
	}
	return nil
}
