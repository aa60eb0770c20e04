package main

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// TestFloor counts what is asked: one request when nothing has changed, five more to push what has.
func TestFloor(t *testing.T) {
	var asked []string
	store := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method)
		store.ServeHTTP(w, r)
	}))
	defer s.Close()
	image := strings.TrimPrefix(s.URL, "http://") + "/app:1"
	dir := t.TempDir()
	file := filepath.Join(dir, "a")
	if err := os.WriteFile(file, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := run(dir, image, ""); err != nil {
		t.Fatal(err)
	}
	if want := []string{"HEAD"}; !slices.Equal(asked, want) {
		t.Errorf("nothing changed: %v, want %v", asked, want)
	}
	asked = nil
	if err := run(dir, image, file); err != nil {
		t.Fatal(err)
	}
	if want := []string{"HEAD", "POST", "PUT", "POST", "PUT", "PUT"}; !slices.Equal(asked, want) {
		t.Errorf("a file changed: %v, want %v", asked, want)
	}
	ref, err := name.ParseReference(image, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	if layers, err := img.Layers(); err != nil || len(layers) != 1 {
		t.Errorf("the image has %d layers, %v; want 1", len(layers), err)
	}
	if err := run(filepath.Join(dir, "missing"), image, ""); err == nil {
		t.Error("a context that is not there is no error")
	}
}
