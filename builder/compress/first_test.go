package compress

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/moby/buildkit/util/compression"
)

// entries lists an archive: what each file is, by its name, and the names in their order.
func entries(t *testing.T, archive []byte) (files map[string]string, order []string) {
	t.Helper()
	files = map[string]string{}
	for tr := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files, order
		} else if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		order = append(order, h.Name)
		files[h.Name] = strings.Join([]string{string(h.Typeflag), h.Linkname, h.FileInfo().Mode().String(), h.PAXRecords["SCHILY.xattr.user.a"], string(body)}, "\x00")
	}
}

func first(t *testing.T, in []byte, cores int, names ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := startStargz(func(r io.Reader) (sums, error) { return writeFirst(&out, r, names, 6, cores) })
	if _, err := io.Copy(w, bytes.NewReader(in)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// The files that are asked for come first, with the directories that they are in, then the landmark, then the rest; nothing is lost.
func TestFirst(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	in := layer(t, 8, 40)
	blob := first(t, in, 2, "/d/7", "gone", "d/3")
	want, _ := entries(t, in)
	got, order := entries(t, plainText(t, EStargz, blob))
	if head := order[:4]; !slices.Equal(head, []string{"d/", "d/7", "d/3", estargz.PrefetchLandmark}) {
		t.Errorf("begins with %q", head)
	}
	delete(got, estargz.PrefetchLandmark)
	for name, file := range want {
		if got[name] != file {
			t.Errorf("%s is another file", name)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("%d files more", len(got))
	}
	r, err := estargz.Open(io.NewSectionReader(bytes.NewReader(blob), 0, int64(len(blob))))
	if err != nil {
		t.Fatal(err)
	}
	mark, ok := r.Lookup(estargz.PrefetchLandmark)
	seven, _ := r.Lookup("d/7")
	if !ok || mark.Offset <= seven.Offset {
		t.Errorf("the landmark is at %+v, behind %+v", mark, seven)
	}
	for _, cores := range []int{1, 8} {
		runtime.GOMAXPROCS(cores)
		if !bytes.Equal(first(t, in, cores, "/d/7", "gone", "d/3"), blob) {
			t.Errorf("other bytes on %d cores", cores)
		}
	}
	// What was put into an order once can be put into another.
	_, order = entries(t, plainText(t, EStargz, first(t, plainText(t, EStargz, blob), 2, "d/9")))
	if head := order[:3]; !slices.Equal(head, []string{"d/", "d/9", estargz.PrefetchLandmark}) || len(order) != len(want)+1 {
		t.Errorf("%d files, beginning with %q", len(order), head)
	}
}

func TestFirstOfOthers(t *testing.T) {
	for _, f := range Formats() {
		plain, err := New(f, Options{})
		if err != nil {
			t.Fatal(err)
		}
		ordered, err := First(plain, []string{"a"})
		if err != nil {
			t.Fatal(err)
		}
		if none, err := First(plain, nil); err != nil || none != plain {
			t.Errorf("%s without files: %v, %v", f, none, err)
		}
		if f != EStargz {
			if ordered != plain {
				t.Errorf("%s has another order", f)
			}
			continue
		}
		other, err := First(plain, []string{"a", "b"})
		if err != nil || other.String() == ordered.String() || ordered.String() == plain.String() {
			t.Errorf("%s and %s: %v", other, ordered, err)
		}
		if Instead(compression.New(ordered), Options{}).Type.String() != ordered.String() {
			t.Error("the order was replaced")
		}
	}
}
