package compress

import (
	"archive/tar"
	"bytes"
	"strings"
	"testing"

	"github.com/containerd/stargz-snapshotter/estargz"
)

// Landmarks go, wherever they stand; not one other byte changes.
func TestWithoutLandmarks(t *testing.T) {
	archive := func(names ...string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for i, name := range names {
			h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(i * 300)}
			if strings.HasPrefix(name, "pax") {
				h.PAXRecords = map[string]string{"SCHILY.xattr.user.a": strings.Repeat("x", 700)}
			}
			if strings.Contains(name, "landmark") {
				h.Size = 1
			}
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(bytes.Repeat([]byte{'c'}, int(h.Size))); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return append(b.Bytes(), make([]byte, 5000)...) // GNU tar's fill
	}
	for _, names := range [][]string{
		{},
		{"a", "pax", "d"},
		{"a", "pax", "d/" + strings.Repeat("long", 80), estargz.PrefetchLandmark + "s", "d/" + estargz.PrefetchLandmark},
	} {
		want := archive(names...)
		for _, mark := range []string{estargz.PrefetchLandmark, estargz.NoPrefetchLandmark, "./" + estargz.PrefetchLandmark} {
			for at := range len(names) + 1 {
				// The sizes of files go by their place, so the landmark is put between the bytes.
				one := archive(mark)[:1024]
				var in []byte
				prefix := archive(names[:at]...)
				cut := len(prefix) - 5000 - 1024
				in = append(append(append(in, want[:cut]...), one...), want[cut:]...)
				var got bytes.Buffer
				if err := withoutLandmarks(&got, bytes.NewReader(in)); err != nil {
					t.Fatalf("%q at %d of %q: %v", mark, at, names, err)
				}
				if !bytes.Equal(got.Bytes(), want) {
					t.Errorf("%q at %d of %q: %d bytes became %d, want %d", mark, at, names, len(in), got.Len(), len(want))
				}
			}
		}
		var got bytes.Buffer
		if err := withoutLandmarks(&got, bytes.NewReader(want)); err != nil || !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%q changes: %v", names, err)
		}
	}
	if err := withoutLandmarks(&bytes.Buffer{}, strings.NewReader("no archive"+strings.Repeat("x", 1000))); err == nil {
		t.Error("what is no archive is copied")
	}
}
