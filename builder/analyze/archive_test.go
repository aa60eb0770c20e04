package analyze

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// layoutFiles are the files of a layout with one image under each of the names.
func layoutFiles(t *testing.T, im Image, names ...string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	blobs := im.Blobs.(blobs)
	for d, b := range blobs {
		files["blobs/sha256/"+d.Encoded()] = b
	}
	var index ocispecs.Index
	for _, name := range names {
		index.Manifests = append(index.Manifests, ocispecs.Descriptor{
			MediaType: ocispecs.MediaTypeImageManifest, Digest: im.Digest, Size: int64(len(blobs[im.Digest])),
			Annotations: map[string]string{ocispecs.AnnotationRefName: name, "io.containerd.image.name": "docker.io/library/app:" + name},
		})
	}
	b, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	files["index.json"] = b
	return files
}

// TestLayout reads a layout as a directory and as an archive, whose members come in any order.
func TestLayout(t *testing.T) {
	im := newImage(t, "a 3", "a 4")
	files := layoutFiles(t, im, "v1", "v2")
	dir := filepath.Join(t.TempDir(), "layout")
	archive := dir + ".tar"
	f, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	for name, b := range files {
		path := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		w.WriteHeader(&tar.Header{Name: "./" + name, Typeflag: tar.TypeReg, Size: int64(len(b)), Mode: 0o644})
		w.Write(b)
	}
	w.Close()
	f.Close()
	for _, path := range []string{dir, archive} {
		for name, want := range map[string]string{"": "", "v2": "", "app:v1": "", "gone": "has no image"} {
			l, err := OpenLayout(path)
			if err != nil {
				t.Fatal(err)
			}
			target, err := l.Find(name)
			var r *Report
			if err == nil {
				var opened Image
				if opened, err = Open(t.Context(), path, l, target, nil); err == nil {
					r, err = Analyze(t.Context(), opened, Options{})
				}
			}
			l.Close()
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s %q: %v", path, name, err)
			}
			if err == nil && lines(r.Wasted) != "/a 3 #1 overwritten by #2" {
				t.Errorf("%s %q: %s", path, name, lines(r.Wasted))
			}
		}
	}
}

func TestNoLayout(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	os.WriteFile(text, []byte(strings.Repeat("no archive\n", 100)), 0o644)
	empty := filepath.Join(dir, "empty.tar")
	f, _ := os.Create(empty)
	tar.NewWriter(f).Close()
	f.Close()
	for _, path := range []string{dir, text, empty} {
		if _, err := OpenLayout(path); !errors.Is(err, ErrNoLayout) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := OpenLayout(filepath.Join(dir, "gone")); err == nil || errors.Is(err, ErrNoLayout) {
		t.Errorf("got %v", err)
	}
	l := &Layout{dir: dir}
	for _, d := range []digest.Digest{"sha256:../../etc/passwd", digest.Digest(fmt.Sprintf("sha256:%064d", 0))} {
		if _, err := l.ReaderAt(t.Context(), ocispecs.Descriptor{Digest: d}); err == nil {
			t.Errorf("opened %s", d)
		}
	}
}
