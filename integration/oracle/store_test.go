package oracle

import (
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func TestStore(t *testing.T) {
	img, err := mutate.AppendLayers(empty.Image,
		static.NewLayer(archive(t, "a f 644 0:0 x"), types.OCIUncompressedLayer),
		static.NewLayer(archive(t, "b f 644 0:0 y"), types.OCIUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	other, err := mutate.Config(img, v1.Config{User: "1"})
	if err != nil {
		t.Fatal(err)
	}
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: other, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}}},
		mutate.IndexAddendum{Add: empty.Image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"}}})

	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	images, err := Layout(dir)
	if err != nil {
		t.Fatal(err)
	}
	var r Reader
	one, err := r.Read(images[""])
	if err != nil {
		t.Fatal(err)
	}
	if len(images) != 1 || len(one.Tree) != 3 || len(one.Layers) != 2 {
		t.Errorf("got %d images, the tree %v of %v", len(images), one.Tree, one.Layers)
	}
	if err := p.AppendIndex(index); err != nil {
		t.Fatal(err)
	}
	if _, err := Layout(dir); err == nil {
		t.Error("of two images in a layout one was chosen")
	}
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if images, err = Open(dir, digest.String()); err != nil {
		t.Fatal(err)
	}
	if len(images) != 2 || images["linux/amd64"] == nil {
		t.Fatalf("got the platforms of %v", images)
	}
	two, err := r.Read(images["linux/arm64/v8"])
	if err != nil {
		t.Fatal(err)
	}
	want := `config.config.User: "1", want nothing`
	if got := Compare(one, two, Rules{}); len(got) != 1 || got[0] != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
