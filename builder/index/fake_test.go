package index

import (
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
)

const host = "registry.test"

// fake is a registry in this process, without a network.
type fake struct {
	handler http.Handler
	// before and after are how long a request waits at most until it takes effect, and its answer then. A request that is given up takes effect all the same.
	before, after time.Duration
	conditional   bool // it honours If-Match and If-None-Match
	stored        func(b []byte)

	mu      sync.Mutex
	pending sync.WaitGroup
	puts    int
}

func newFake() *fake {
	return &fake{handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
}

func upTo(d time.Duration) time.Duration {
	if d == 0 {
		return 0
	}
	return rand.N(d)
}

func (f *fake) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		var err error
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
	}
	answer := make(chan *http.Response, 1)
	f.pending.Add(1)
	go func() {
		defer f.pending.Done()
		time.Sleep(upTo(f.before))
		resp := f.serve(req, body)
		time.Sleep(upTo(f.after))
		answer <- resp
	}()
	select {
	case <-req.Context().Done():
		return nil, req.Context().Err()
	case resp := <-answer:
		return resp, nil
	}
}

func (f *fake) serve(req *http.Request, body []byte) *http.Response {
	f.mu.Lock()
	defer f.mu.Unlock()
	do := func(method string, body []byte) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(method, req.URL.String(), strings.NewReader(string(body)))
		r.Header = req.Header.Clone()
		f.handler.ServeHTTP(w, r)
		return w
	}
	tagged := strings.Contains(req.URL.Path, "/manifests/") && !strings.Contains(req.URL.Path, "sha256:")
	if tagged && f.conditional && req.Method == http.MethodPut {
		now := do(http.MethodHead, nil).Header().Get("Docker-Content-Digest")
		if m := req.Header.Get("If-Match"); m != "" && m != `"`+now+`"` || req.Header.Get("If-None-Match") == "*" && now != "" {
			return &http.Response{StatusCode: http.StatusPreconditionFailed, Body: http.NoBody, Request: req, Header: http.Header{}}
		}
	}
	w := do(req.Method, body)
	if tagged && req.Method == http.MethodPut {
		f.puts++
		if f.stored != nil {
			f.stored(body)
		}
	}
	resp := w.Result()
	resp.Request = req
	if d := resp.Header.Get("Docker-Content-Digest"); tagged && f.conditional && d != "" {
		resp.Header.Set("ETag", `"`+d+`"`)
	}
	return resp
}

func (f *fake) open() Registry {
	return New(func(string) ([]docker.RegistryHost, error) {
		return []docker.RegistryHost{{
			Client: &http.Client{Transport: f}, Host: host, Scheme: "http", Path: "/v2",
			Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve | docker.HostCapabilityPush,
		}}, nil
	})
}

// push stores an image for a platform in a repository, without a tag.
func (f *fake) push(t *testing.T, repository, p string) (d digest.Digest, img v1.Image) {
	t.Helper()
	spec := platforms.MustParse(p)
	img, err := random.Image(10, 1)
	if err != nil {
		t.Fatal(err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c.OS, c.Architecture, c.Variant = spec.OS, spec.Architecture, spec.Variant
	if img, err = mutate.ConfigFile(img, c); err != nil {
		t.Fatal(err)
	}
	h, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewDigest(host+"/"+repository+"@"+h.String(), name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img, remote.WithTransport(f)); err != nil {
		t.Fatal(err)
	}
	return digest.Digest(h.String()), img
}

func mustTag(t *testing.T, ref string) tag {
	t.Helper()
	named, err := ParseTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	return tag{newFake().open().hosts, named}
}
