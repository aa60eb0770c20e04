package backends

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/moby/buildkit/cache/remotecache"
	"github.com/moby/buildkit/cache/remotecache/azblob"
	cacheimporttypes "github.com/moby/buildkit/cache/remotecache/v1/types"

	"github.com/optbuild/optbuild/builder/engine/actionscache/actionstest"
	"github.com/optbuild/optbuild/builder/engine/chains"
	"github.com/optbuild/optbuild/builder/engine/chains/chainstest"
)

// cloud is one of the clouds that this binary has.
type cloud struct {
	attrs    func(url string) map[string]string
	store    func() http.Handler
	buildkit remotecache.ResolveCacheImporterFunc
}

// clouds are those that this binary has, by the types of their caches.
func clouds() map[string]cloud {
	list := map[string]cloud{"azblob": {
		attrs: func(url string) map[string]string {
			return map[string]string{"account_url": url + "/", "account_name": "account", "secret_access_key": "dGVzdA==", "prefix": "p", "name": "n"}
		},
		store:    func() http.Handler { return &actionstest.Blobs{} },
		buildkit: azblob.ResolveCacheImporterFunc(),
	}}
	addS3Cloud(list)
	return list
}

// isIndex says whether a request is for an index.
func isIndex(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "manifests/")
}

// write exports a cache in which each step has made the layer that is its name.
func write(t *testing.T, kind string, attrs map[string]string, steps ...string) {
	t.Helper()
	e, err := all()[kind].exporter(t.Context(), nil, attrs)
	if err == nil {
		err = chainstest.Write(t, e, steps...)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestSameAsBuildKit: what BuildKit writes, both read alike.
func TestSameAsBuildKit(t *testing.T) {
	large := strings.Repeat("0123456789", 200_000) // several reads
	for kind, c := range clouds() {
		for by, importer := range map[string]remotecache.ResolveCacheImporterFunc{"ours": all()[kind].importer(chainstest.Anything), "BuildKit's": c.buildkit} {
			t.Run(kind+" "+by, func(t *testing.T) {
				server := httptest.NewServer(c.store())
				defer server.Close()
				attrs := c.attrs(server.URL)
				// BuildKit's makes what is not there, ours takes it for empty.
				if got, err := chainstest.Read(t, importer, attrs, "one"); by == "ours" && (err != nil || len(got.Texts) > 0) {
					t.Errorf("before chainstest.Anything was written: read %q, error %v", got.Texts, err)
				}
				write(t, kind, attrs, "one", large)
				got, err := chainstest.Read(t, importer, attrs, "one", "unknown", large)
				if err != nil || !slices.Equal(got.Texts, []string{"one", large}) {
					t.Fatalf("read %d layers: %.40q (%v)", len(got.Texts), got.Texts, err)
				}
				for i, layer := range []string{"one", large} {
					if want := chainstest.Describe(layer); fmt.Sprint(got.Layers[i]) != fmt.Sprint(want) {
						t.Errorf("described as\n%v\nwant\n%v", got.Layers[i], want)
					}
				}
				other := c.attrs(server.URL)
				other["name"] = "other"
				if got, err := chainstest.Read(t, importer, other, "one"); err != nil || len(got.Texts) > 0 {
					t.Errorf("another name has %.40q (%v)", got.Texts, err)
				}
			})
		}
	}
}

// TestHuge: no more is read of an index than an index may have, though each of these is right but for its size; nor of what is sent in its place.
func TestHuge(t *testing.T) {
	const piece, pieces = 1 << 20, chains.MaxBytes>>20 + 64
	spaces := bytes.Repeat([]byte(" "), piece)
	for kind, c := range clouds() {
		for name, test := range map[string]struct {
			status, most int // what may be sent until the reader has gone, buffers on the way included
			head, want   string
		}{
			"index":   {http.StatusOK, pieces - 16, "{}", "it is larger than 64 MiB"},
			"values":  {http.StatusOK, 0, `{"records":[` + strings.Repeat("{},", chains.MaxValues/2) + "{}]}", "values"},
			"refusal": {http.StatusForbidden, 48, "<Error><Code>No</Code></Error>", "403"},
		} {
			t.Run(kind+" "+name, func(t *testing.T) {
				store, sent := c.store(), atomic.Int64{}
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if !isIndex(r) {
						store.ServeHTTP(w, r)
						return
					}
					w.WriteHeader(test.status)
					_, err := io.WriteString(w, test.head)
					for n := 0; test.most > 0 && n < pieces && err == nil; n++ {
						_, err = w.Write(spaces)
						sent.Add(1)
					}
				}))
				attrs := c.attrs(server.URL)
				write(t, kind, attrs, "layer")
				_, err := chainstest.Read(t, all()[kind].importer(chainstest.Anything), attrs, "layer")
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("error %v, want %s", err, test.want)
				}
				server.Close() // waits for who is sending still
				if n := sent.Load(); n > int64(test.most) {
					t.Errorf("%d MiB were taken", n)
				}
			})
		}
	}
}

// TestRefused: an index is checked for what BuildKit would make of it.
func TestRefused(t *testing.T) {
	for kind, c := range clouds() {
		server := httptest.NewServer(c.store())
		defer server.Close()
		write(t, kind, c.attrs(server.URL), "layer")
		refuse := func(index *cacheimporttypes.CacheConfig) error {
			return fmt.Errorf("%d records are too many", len(index.Records))
		}
		if _, err := chainstest.Read(t, all()[kind].importer(refuse), c.attrs(server.URL), "layer"); err == nil || !strings.Contains(err.Error(), "index n: 1 records are too many") {
			t.Errorf("%s: error %v", kind, err)
		}
	}
}

// TestWrongLayer: of a layer that is larger than its index says, no more is read; one that may not be read is an error.
func TestWrongLayer(t *testing.T) {
	for kind, c := range clouds() {
		for name, test := range map[string]struct {
			status     int
			body, want string
			err        string
		}{
			"larger":  {http.StatusOK, "layer and more", "[layer]", ""},
			"refused": {http.StatusForbidden, "", "[]", "403"},
		} {
			t.Run(kind+" "+name, func(t *testing.T) {
				store, replaced := c.store(), atomic.Bool{}
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if !replaced.Load() || r.Method != http.MethodGet || isIndex(r) {
						store.ServeHTTP(w, r)
						return
					}
					w.WriteHeader(test.status)
					io.WriteString(w, test.body)
				}))
				defer server.Close()
				write(t, kind, c.attrs(server.URL), "layer")
				replaced.Store(true)
				got, err := chainstest.Read(t, all()[kind].importer(chainstest.Anything), c.attrs(server.URL), "layer")
				if fmt.Sprint(got.Texts) != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
					t.Errorf("read %q, error %v", got.Texts, err)
				}
			})
		}
	}
}

// TestReader: a layer is read from anywhere, with no more requests than that takes, and to its end and no further.
func TestReader(t *testing.T) {
	const text = "0123456789"
	var opened []int64
	r := &reader{size: 8, open: func(offset int64) (io.ReadCloser, error) {
		opened = append(opened, offset)
		return io.NopCloser(strings.NewReader(text[offset:])), nil
	}}
	for _, test := range []struct {
		off    int64
		length int
		want   string
		err    error
	}{
		{0, 3, "012", nil}, {3, 3, "345", nil}, {6, 3, "67", io.EOF}, {8, 1, "", io.EOF}, {9, 1, "", io.EOF}, {2, 6, "234567", nil}, {0, 100, "01234567", io.EOF},
	} {
		b := make([]byte, test.length)
		if n, err := r.ReadAt(b, test.off); string(b[:n]) != test.want || err != test.err {
			t.Errorf("%d bytes at %d: %q, error %v", test.length, test.off, b[:n], err)
		}
	}
	if err := r.Close(); err != nil || !slices.Equal(opened, []int64{0, 2, 0}) {
		t.Errorf("opened at %v, closed with %v", opened, err)
	}
}
