package request

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestWholeTar(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range []string{"Dockerfile", "a", "b"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: 700}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, strings.Repeat("\x00", 700)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	whole := b.Bytes()
	padded := append(bytes.Clone(whole), make([]byte, 8192)...) // tar(1) pads to its record size
	entry := 512 + 1024
	for _, c := range []struct {
		name    string
		archive []byte
		cut     bool
	}{
		{"whole", whole, false},
		{"padded", padded, false},
		{"cut behind the first file", whole[:entry], true},
		{"cut behind the last file", whole[:3*entry], true},
		{"cut within a file", whole[:entry+600], true},
		{"half an end marker", whole[:3*entry+512], true},
	} {
		t.Run(c.name, func(t *testing.T) {
			reported := false
			r := newWholeTar(iotest.HalfReader(bytes.NewReader(c.archive)), func() { reported = true })
			defer r.Close()
			got, err := io.ReadAll(r)
			if !bytes.Equal(got, c.archive) {
				t.Errorf("passed on %d bytes of %d, or other ones", len(got), len(c.archive))
			}
			if errors.Is(err, errCutOff) != c.cut || reported != c.cut {
				t.Errorf("error %v, reported %v; want cut off: %v", err, reported, c.cut)
			}
		})
	}
}
