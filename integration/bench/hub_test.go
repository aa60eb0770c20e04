package main

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func TestHubCountsBlobs(t *testing.T) {
	h := newHub()
	s := httptest.NewServer(h)
	defer s.Close()
	img, err := random.Image(100, 3)
	if err != nil {
		t.Fatal(err)
	}
	push := func(repository string) int64 {
		t.Helper()
		ref, err := name.ParseReference(strings.TrimPrefix(s.URL, "http://")+"/"+repository, name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		before := h.uploads.Load()
		if err := remote.Write(ref, img); err != nil {
			t.Fatal(err)
		}
		return h.uploads.Load() - before
	}
	if n := push("a"); n != 4 { // layers and configuration
		t.Errorf("a new image: %d blobs, want 4", n)
	}
	if n := push("a"); n != 0 {
		t.Errorf("the same again: %d blobs, want 0", n)
	}
	h.empty()
	if n := push("a"); n != 4 {
		t.Errorf("when the registry has forgotten it: %d blobs, want 4", n)
	}
}
