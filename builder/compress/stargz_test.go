package compress

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/opencontainers/go-digest"
)

// The blob opens with stargz-snapshotter's library, its table is that of its digest, every chunk verifies, and every file reads back.
func TestStargz(t *testing.T) {
	in := layer(t, 5, 150)
	var out bytes.Buffer
	w := newStargz(&out, 6, 2)
	if _, err := io.Copy(w, bytes.NewReader(in)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	blob := out.Bytes()
	if got := digest.FromBytes(blob); got != w.sums.blob {
		t.Errorf("digest is %s, told was %s", got, w.sums.blob)
	}
	zr, err := gzip.NewReader(bytes.NewReader(blob))
	if err != nil {
		t.Fatal(err)
	}
	whole, err := io.ReadAll(zr) // as those read it who know of gzip only
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(whole, in) || digest.FromBytes(whole) != w.sums.diffID || int64(len(whole)) != w.sums.uncompressed {
		t.Errorf("decompressed %d bytes, %s; told were %d, %s", len(whole), digest.FromBytes(whole), w.sums.uncompressed, w.sums.diffID)
	}

	r, err := estargz.Open(io.NewSectionReader(bytes.NewReader(blob), 0, int64(len(blob))))
	if err != nil {
		t.Fatal(err)
	}
	if r.TOCDigest() != w.sums.toc {
		t.Errorf("the table's digest is %s, told was %s", r.TOCDigest(), w.sums.toc)
	}
	readsBack(t, r, w.sums.toc, in, 150)
}

// readsBack reads all files of a blob by its table, of which toc is the digest, verifies their chunks, and compares them with those of the tar; want is how many there are.
func readsBack(t *testing.T, r *estargz.Reader, toc digest.Digest, in []byte, want int) {
	t.Helper()
	verifier, err := r.VerifyTOC(toc)
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	for tr := tar.NewReader(bytes.NewReader(in)); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		text, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		f, err := r.OpenFile(h.Name)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(text))
		if _, err := f.ReadAt(got, 0); err != nil && !errors.Is(err, io.EOF) {
			t.Fatalf("%s: %v", h.Name, err)
		}
		if !bytes.Equal(got, text) {
			t.Errorf("%s reads back differently", h.Name)
		}
		for at := int64(0); at < int64(len(text)); {
			chunk, ok := r.ChunkEntryForOffset(h.Name, at)
			if !ok {
				t.Fatalf("%s has no chunk at %d", h.Name, at)
			}
			v, err := verifier.Verifier(chunk)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = v.Write(text[chunk.ChunkOffset : chunk.ChunkOffset+chunk.ChunkSize])
			if !v.Verified() {
				t.Errorf("%s: the chunk at %d does not verify", h.Name, at)
			}
			at += chunk.ChunkSize
		}
		files++
	}
	if files != want {
		t.Errorf("%d files, want %d", files, want)
	}
}

// A table of contents among a layer's files would be taken for the blob's own.
func TestStargzInStargz(t *testing.T) {
	var in bytes.Buffer
	tw := tar.NewWriter(&in)
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: estargz.TOCTarName}); err != nil {
		t.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	w := newStargz(io.Discard, 6, 1)
	_, _ = w.Write(in.Bytes())
	if err := w.Close(); err == nil || !strings.Contains(err.Error(), "existing TOC JSON is not allowed") {
		t.Errorf("error: %v", err)
	}
}
