package actionscache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/cache/remotecache"
	cacheimporttypes "github.com/moby/buildkit/cache/remotecache/v1/types"
	"github.com/moby/buildkit/session"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/engine/actionscache/actionstest"
	"github.com/optbuild/optbuild/builder/engine/chains"
	"github.com/optbuild/optbuild/builder/engine/chains/chainstest"
)

// What the service says is not taken for granted.
func TestWrong(t *testing.T) {
	for name, test := range map[string]struct {
		change func(s *actionstest.Service)
		want   string // the error
	}{
		"a layer is gone": {func(s *actionstest.Service) { s.Evict(blobs) }, "is not in the cache any more: not found"},
		"damaged":         {func(s *actionstest.Service) { s.Change(index, func(b []byte) []byte { return b[:len(b)/2] }) }, "#1 is damaged: unexpected end of JSON input"},
		"not what it is": {func(s *actionstest.Service) {
			s.Change(index, func([]byte) []byte { return []byte(`{"layers":[{"blob":"sha256:00"}]}`) })
		}, `index of refs/heads/main: nothing is said of layer "sha256:00"`},
		"no digest": {func(s *actionstest.Service) {
			s.Change(index, func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("sha256:"), []byte("../../")) })
		}, "is none"},
		"no layer": {func(s *actionstest.Service) {
			s.Change(index, func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("application/"), []byte("text/")) })
		}, "is none"},
		"too large": {func(s *actionstest.Service) {
			s.Change(index, func([]byte) []byte { return make([]byte, chains.MaxBytes+1) })
		}, "it is larger than 64 MiB"},
		"refused": {func(*actionstest.Service) {}, "index of refs/heads/main: it is refused"},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			a := attrs(s, "2", mainBranch)
			if err := write(t, Exporter(), a, "layer"); err != nil {
				t.Fatal(err)
			}
			test.change(s)
			check := func(*cacheimporttypes.CacheConfig) error {
				if name == "refused" {
					return errors.New("it is refused")
				}
				return nil
			}
			if _, err := chainstest.Read(t, Importer(check), a, "layer"); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v, want %s", err, test.want)
			}
		})
	}
}

// A service that falls silent costs no more than a time.
func TestSilent(t *testing.T) {
	s := start(t)
	if err := write(t, Exporter(), attrs(s, "2", mainBranch), "layer"); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		silent string // in the address of requests that get no answer
		layer  bool   // that get the head of one
		want   error
	}{
		"look-up": {"/GetCacheEntryDownloadURL", false, context.DeadlineExceeded},
		"index":   {"/storage/actions/2", false, context.DeadlineExceeded},
		"layer":   {"/storage/actions/1", true, errStalled},
	} {
		t.Run(name, func(t *testing.T) {
			real := s.URL
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !strings.HasSuffix(r.URL.Path, test.silent) {
					s.ServeHTTP(w, r)
					return
				}
				if test.layer {
					w.Header().Set("Content-Length", "5")
					w.WriteHeader(http.StatusOK)
					w.(http.Flusher).Flush()
				}
				io.Copy(io.Discard, r.Body) // before it, a server does not notice that a client goes
				<-r.Context().Done()
			}))
			defer server.Close()
			s.URL = server.URL + "/"
			defer func() { s.URL = real }()
			quick := func(ctx context.Context, g session.Group, attrs map[string]string) (remotecache.Importer, ocispecs.Descriptor, error) {
				i, d, err := Importer(chainstest.Anything)(ctx, g, attrs)
				if err == nil && test.layer {
					i.(*importer).service.stall = 50 * time.Millisecond
				} else if err == nil {
					i.(*importer).service.timeout = 50 * time.Millisecond
				}
				return i, d, err
			}
			if _, err := chainstest.Read(t, quick, attrs(s, "2", mainBranch), "layer"); !errors.Is(err, test.want) {
				t.Errorf("got error %v, want %v", err, test.want)
			}
		})
	}
}
