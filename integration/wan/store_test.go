package wan

import (
	"bytes"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func stored(t *testing.T) *Registry {
	t.Helper()
	r, err := Serve(NewStore(t.TempDir()), Profile{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func push(t *testing.T, r *Registry, ref string, img v1.Image) {
	t.Helper()
	n, err := name.ParseReference(r.Addr+"/"+ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(n, img); err != nil {
		t.Fatal(err)
	}
}

func pull(t *testing.T, r *Registry, ref string) v1.Image {
	t.Helper()
	n, err := name.ParseReference(r.Addr+"/"+ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(n)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func randomImage(t *testing.T) v1.Image {
	t.Helper()
	img, err := random.Image(100_000, 3)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestCounts(t *testing.T) {
	r := stored(t)
	img := randomImage(t)
	push(t, r, "a:1", img)
	config, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(config))
	for _, l := range layers {
		n, err := l.Size()
		if err != nil {
			t.Fatal(err)
		}
		size += n
	}
	c := r.Counts()
	if c.Uploads != 4 || c.PushedBlobBytes != size || c.ManifestPuts != 1 || c.PushedManifestBytes != int64(len(manifest)) {
		t.Errorf("pushing 4 blobs of %d bytes and a manifest of %d counts as %+v", size, len(manifest), c)
	}
	r.Reset()
	pulled := pull(t, r, "a:1")
	if got, err := pulled.RawConfigFile(); !bytes.Equal(got, config) || err != nil {
		t.Errorf("config %q, %v", got, err)
	}
	if layers, err = pulled.Layers(); err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		content, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, content); err != nil { // checks the digest
			t.Error(err)
		}
		content.Close()
	}
	c = r.Counts()
	if c.BlobGets != 4 || c.BlobBytes != size || c.ManifestGets != 1 || c.ManifestBytes != int64(len(manifest)) || c.PushedBlobBytes != 0 {
		t.Errorf("pulling 4 blobs of %d bytes and a manifest of %d counts as %+v", size, len(manifest), c)
	}
	if got := r.Traffic().Received; got < size+int64(len(manifest)) || got > size+int64(len(manifest))+10_000 {
		t.Errorf("the link counted %d bytes, bodies are %d", got, size+int64(len(manifest)))
	}
}

// A repository has what was pushed to it or mounted into it.
func TestRepositories(t *testing.T) {
	r := stored(t)
	img := randomImage(t)
	push(t, r, "a:1", img)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	head := func(repo string) int {
		resp, err := http.Head("http://" + r.Addr + "/v2/" + repo + "/blobs/" + digest.String())
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if a, b := head("a"), head("b"); a != 200 || b != 404 {
		t.Errorf("a has its blob: %d; b has it: %d", a, b)
	}
	r.Reset()
	push(t, r, "b:1", img) // knows nothing of a
	if c := r.Counts(); c.Mounts != 0 || c.Uploads != 4 {
		t.Errorf("counts are %+v, want 4 uploads", c)
	}
	others, err := randomImage(t).Layers()
	if err != nil {
		t.Fatal(err)
	}
	more, err := mutate.AppendLayers(pull(t, r, "a:1"), others[0])
	if err != nil {
		t.Fatal(err)
	}
	r.Reset()
	push(t, r, "c/d:1", more)
	if c := r.Counts(); c.Mounts != 3 || c.Uploads != 2 || head("c/d") != 200 {
		t.Errorf("counts are %+v, want 3 mounts and 2 uploads", c)
	}
	if err := validate.Image(pull(t, r, "c/d:1")); err != nil {
		t.Error(err)
	}
}

// Two registries on one store are two runners: what one pushes the other has, and each has a link and counts of its own.
func TestTwoRunners(t *testing.T) {
	store := NewStore(t.TempDir())
	var runners [2]*Registry
	for i := range runners {
		var err error
		if runners[i], err = Serve(store, Profile{}); err != nil {
			t.Fatal(err)
		}
		defer runners[i].Close()
	}
	push(t, runners[0], "a:1", randomImage(t))
	if sent := runners[1].Traffic().Sent; sent != 0 {
		t.Errorf("the other one's link has carried %d bytes", sent)
	}
	if err := validate.Image(pull(t, runners[1], "a:1")); err != nil {
		t.Error(err)
	}
	if c := runners[0].Counts(); c.BlobGets != 0 || c.Uploads != 4 {
		t.Errorf("the first one counts %+v", c)
	}
}

func TestMissingBlob(t *testing.T) {
	r := stored(t)
	manifest, err := randomImage(t).RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPut, "http://"+r.Addr+"/v2/a/manifests/1", bytes.NewReader(manifest))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a manifest without its blobs: %s", resp.Status)
	}
}

func TestRanges(t *testing.T) {
	r := stored(t)
	img := randomImage(t)
	push(t, r, "a:1", img)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	compressed, err := layers[0].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	whole, err := io.ReadAll(compressed)
	if err != nil {
		t.Fatal(err)
	}
	get := func(ranges string) (string, []byte) {
		req, _ := http.NewRequest(http.MethodGet, "http://"+r.Addr+"/v2/a/blobs/"+digest.String(), nil)
		req.Header.Set("Range", ranges)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusPartialContent {
			t.Fatalf("%s: %s, %v", ranges, resp.Status, err)
		}
		return resp.Header.Get("Content-Type"), body
	}
	if _, got := get("bytes=50000-"); !bytes.Equal(got, whole[50000:]) {
		t.Errorf("an open range gave %d bytes", len(got))
	}
	kind, body := get("bytes=0-9,100-199")
	_, params, err := mime.ParseMediaType(kind)
	if err != nil {
		t.Fatal(err)
	}
	parts := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	for _, want := range [][]byte{whole[:10], whole[100:200]} {
		p, err := parts.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(p); !bytes.Equal(got, want) || err != nil {
			t.Errorf("a part has %d bytes, want %d", len(got), len(want))
		}
	}
}
