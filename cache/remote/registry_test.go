package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestMain makes the compressor: it can't be used outside of synctest's bubble if it was made in one.
func TestMain(m *testing.M) {
	if _, err := encode("", nil); err != nil {
		panic(err)
	}
	log.SetOutput(io.Discard) // the registry's
	os.Exit(m.Run())
}

// fake is a registry in this process: requests are calls of its handler, with no sockets between, so that time in tests can be synctest's.
type fake struct {
	handler http.Handler

	// before and after, if not nil, say how long a PUT of a tag is on its way to the registry, and its answer back.
	before, after func() time.Duration
	// upload is how long it takes to store a blob, or a holder.
	upload func() time.Duration
	// grace is how long a PUT can take effect after its sender gave it up.
	grace time.Duration
	// conditional makes it honour If-Match.
	conditional bool
	// fail, if not nil, is asked about each request, by its number: an error instead of it, or an answer.
	fail func(n int, r *http.Request, body []byte) (*http.Response, error)
	// checkBlobs makes it refuse manifests whose blobs it has not, as distribution does.
	checkBlobs bool

	mu       sync.Mutex
	requests []string
	bytes    int64 // of answers' bodies
	applying sync.Mutex
	pending  sync.WaitGroup
}

func newFake() *fake {
	return &fake{handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true))}
}

const host = "registry.test"

func (f *fake) hosts(string) ([]docker.RegistryHost, error) {
	return []docker.RegistryHost{{
		Client: &http.Client{Transport: f}, Host: host, Scheme: "http", Path: "/v2",
		Capabilities: docker.HostCapabilityPull | docker.HostCapabilityPush | docker.HostCapabilityResolve,
	}}, nil
}

func (f *fake) open(t testing.TB, o Options) *Store {
	t.Helper()
	named, err := reference.ParseNormalizedNamed(host + "/team/app:ignored")
	if err != nil {
		t.Fatal(err)
	}
	return Open(f.hosts, named, o)
}

// writes tells whether a request sets the tag of a scope.
func writes(r *http.Request) bool {
	return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") && !strings.HasSuffix(r.URL.Path, heldSuffix)
}

func (f *fake) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		stop := context.AfterFunc(r.Context(), func() { r.Body.Close() }) // as net/http does
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		stop()
		r.Body.Close()
	}
	f.mu.Lock()
	n := len(f.requests)
	f.requests = append(f.requests, r.Method+" "+strings.TrimPrefix(r.URL.Path, "/v2/team/app/"))
	f.mu.Unlock()
	if err := context.Cause(r.Context()); err != nil {
		return nil, err
	}
	if f.fail != nil {
		if resp, err := f.fail(n, r, body); resp != nil || err != nil {
			if resp != nil {
				resp.Request = r
			}
			return resp, err
		}
	}
	if !writes(r) {
		if f.upload != nil && r.Method == http.MethodPut {
			time.Sleep(f.upload())
		}
		return f.apply(r, body), nil
	}
	var wait, back time.Duration
	if f.before != nil {
		wait = f.before()
	}
	if f.after != nil {
		back = f.after()
	}
	answer := make(chan *http.Response, 1)
	f.pending.Go(func() {
		select {
		case <-time.After(wait):
		case <-r.Context().Done(): // given up, by the deadline or because the test is done with it: it arrives a little later, or not at all
			if rand.N(2) == 0 {
				return
			}
			time.Sleep(rand.N(f.grace + 1))
		}
		resp := f.apply(r, body)
		time.Sleep(back)
		answer <- resp
	})
	select {
	case resp := <-answer:
		return resp, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// apply has the registry do what a request says.
func (f *fake) apply(r *http.Request, body []byte) *http.Response {
	do := func(method string, body []byte, header http.Header) *httptest.ResponseRecorder {
		req := httptest.NewRequest(method, r.URL.String(), bytes.NewReader(body))
		req.Header = header
		w := httptest.NewRecorder()
		f.handler.ServeHTTP(w, req)
		return w
	}
	f.applying.Lock()
	defer f.applying.Unlock()
	if etag := r.Header.Get("If-Match"); etag != "" && f.conditional {
		now := do(http.MethodHead, nil, http.Header{}).Header().Get("Docker-Content-Digest")
		if etag != `"`+now+`"` {
			return answer(r, http.StatusPreconditionFailed, "")
		}
	}
	if f.checkBlobs && r.Method == http.MethodPut && r.Header.Get("Content-Type") == ocispecs.MediaTypeImageManifest {
		if lacking := f.lacking(body); lacking != "" {
			return answer(r, http.StatusBadRequest, `{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","detail":"`+lacking+`"}]}`)
		}
	}
	header := r.Header.Clone()
	header.Del("Range") // which the handler does not know
	w := do(r.Method, body, header)
	if from, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok && w.Code == http.StatusOK {
		n, err := strconv.Atoi(strings.TrimSuffix(from, "-"))
		if err != nil || n >= w.Body.Len() {
			return answer(r, http.StatusRequestedRangeNotSatisfiable, "")
		}
		return answer(r, http.StatusPartialContent, string(w.Body.Bytes()[n:]))
	}
	resp := w.Result()
	if d := resp.Header.Get("Docker-Content-Digest"); d != "" && f.conditional {
		resp.Header.Set("ETag", `"`+d+`"`)
	}
	resp.Request = r
	f.mu.Lock()
	f.bytes += int64(w.Body.Len())
	f.mu.Unlock()
	return resp
}

// lacking is the first blob of a manifest that the registry has not.
func (f *fake) lacking(manifest []byte) string {
	var m ocispecs.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return err.Error()
	}
	for _, d := range append(m.Layers, m.Config) {
		w := httptest.NewRecorder()
		f.handler.ServeHTTP(w, httptest.NewRequest(http.MethodHead, "/v2/team/app/blobs/"+d.Digest.String(), nil))
		if w.Code != http.StatusOK {
			return d.Digest.String()
		}
	}
	return ""
}

func answer(r *http.Request, status int, body string) *http.Response {
	return &http.Response{
		Status: http.StatusText(status), StatusCode: status, Header: http.Header{}, Request: r,
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// since returns the requests from the nth on.
func (f *fake) since(n int) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.requests[n:]...)
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.requests)
}

// upTo is a random time.
func upTo(d time.Duration) func() time.Duration {
	return func() time.Duration { return rand.N(d) }
}

var errCut = errors.New("connection reset")

// warnings collects what users are told.
type warnings struct {
	mu    sync.Mutex
	texts []string
}

func (w *warnings) add(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.texts = append(w.texts, text)
}

func (w *warnings) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.texts, "\n")
}

// layer is a descriptor of so many bytes that are not there.
func layer(name string, size int64) ocispecs.Descriptor {
	return ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerZstd, Digest: digest.FromString(name), Size: size}
}

// entry is one whose blob is in no registry.
func entry(kind, key string, created time.Time, holds ...ocispecs.Descriptor) Entry {
	return Entry{Kind: kind, Key: key, Created: created, Blob: layer(kind+key, 100), Holds: holds}
}
