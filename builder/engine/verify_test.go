package engine

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestVerified alters blobs, keeping size and time, and reads them.
func TestVerified(t *testing.T) {
	for _, size := range []int{0, 1, 1000, wholeUpTo, wholeUpTo + 1, 3*wholeUpTo + 7} {
		for _, alter := range []bool{false, true} {
			t.Run(fmt.Sprint(size, alter), func(t *testing.T) {
				p := &parts{root: t.TempDir()}
				store, err := local.NewStore(filepath.Join(p.root, "content"))
				if err != nil {
					t.Fatal(err)
				}
				b := bytes.Repeat([]byte("x"), size)
				d := ocispecs.Descriptor{Digest: digest.FromBytes(b), Size: int64(size)}
				if err := content.WriteBlob(t.Context(), store, "new", bytes.NewReader(b), d); err != nil {
					t.Fatal(err)
				}
				alter := alter && size > 0
				path := filepath.Join(p.blobs(), "sha256", d.Digest.Encoded())
				if alter {
					os.Remove(path)
					os.WriteFile(path, append(b[:size-1:size-1], 'y'), 0o444)
				}
				var got []byte
				r, err := verified{store, p.noteSuspect}.ReaderAt(t.Context(), d)
				if err == nil {
					got, err = io.ReadAll(content.NewReader(r))
					r.Close()
				}
				suspects := p.takeSuspects()
				switch {
				case alter && (err == nil || len(got) == size || len(suspects) != 1 || suspects[0] != d.Digest || intact(path, d.Digest)):
					t.Errorf("an altered blob was read: %d bytes, %v; noted %v", len(got), err, suspects)
				case !alter && (err != nil || !bytes.Equal(got, b) || suspects != nil || !intact(path, d.Digest)):
					t.Errorf("got %d bytes, %v; noted %v", len(got), err, suspects)
				case p.takeSuspects() != nil:
					t.Error("suspects are not forgotten")
				}
			})
		}
	}
}

// TestVerifiedOutOfOrder: parts of a large blob can be read in any order.
func TestVerifiedOutOfOrder(t *testing.T) {
	p := &parts{root: t.TempDir()}
	store, err := local.NewStore(filepath.Join(p.root, "content"))
	if err != nil {
		t.Fatal(err)
	}
	b := bytes.Repeat([]byte("0123456789"), wholeUpTo/5)
	d := ocispecs.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b))}
	if err := content.WriteBlob(t.Context(), store, "new", bytes.NewReader(b), d); err != nil {
		t.Fatal(err)
	}
	r, err := verified{store, p.noteSuspect}.ReaderAt(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, at := range []int64{10, 0, 5, r.Size() - 1, 0} {
		c := make([]byte, 1)
		if _, err := r.ReadAt(c, at); err != nil || c[0] != b[at] {
			t.Errorf("at %d: %q, %v", at, c, err)
		}
	}
	if got, err := io.ReadAll(content.NewReader(r)); err != nil || !bytes.Equal(got, b) {
		t.Errorf("read again: %d bytes, %v", len(got), err)
	}
}

// TestWriterIsBounded: a blob can't be larger than it should be, also when it is begun anew.
func TestWriterIsBounded(t *testing.T) {
	store, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d := ocispecs.Descriptor{Digest: digest.FromString("0123456789"), Size: 10}
	w, err := verified{Store: store}.Writer(t.Context(), content.WithRef("new"), content.WithDescriptor(d))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"01234", "56789"} {
		if _, err := w.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("an eleventh byte was taken")
	}
	if err := w.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("0123456")); err != nil {
		t.Fatal(err)
	}
	w.Close()
	w, err = verified{Store: store}.Writer(t.Context(), content.WithRef("new"), content.WithDescriptor(d)) // goes on
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.Write([]byte("789x")); err == nil {
		t.Error("an eleventh byte was taken")
	}
	if _, err := w.Write([]byte("789")); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(t.Context(), d.Size, d.Digest); err != nil {
		t.Error(err)
	}
}
