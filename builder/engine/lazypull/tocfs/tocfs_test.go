package tocfs

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/estargz/zstdchunked"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/builder/compress"
)

func random(n int) []byte {
	b := make([]byte, n)
	rand.New(rand.NewSource(int64(n))).Read(b)
	return b
}

// everything has all kinds of files that a layer may have.
func everything() []entry {
	file := func(name string, mode int64, content []byte) entry {
		return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, content}
	}
	dir := func(name string, mode int64) entry {
		return entry{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}, nil}
	}
	list := []entry{
		dir("./", 0o711), dir("d/", 0o1777), dir("d/e/", 0o2750), dir("opaque/", 0o755), dir("many/", 0o700), file("opaque/.wh..wh..opq", 0, nil), file("opaque/new", 0o600, []byte("new")),
		file("empty", 0o644, nil), file("small", 0o640, []byte("small")), file("large", 0o644, random(3<<20)), file("d/e/setuid", 0o4755, []byte("x")), file("d/e/setgid", 0o2755, []byte("y")),
		file("d/.wh.gone", 0, nil), file(".wh.gone", 0, nil), file("without/parent", 0o644, []byte("p")), file("with\nnewline ü", 0o644, []byte("n")),
		{tar.Header{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "d/e/../../small", Mode: 0o777}, nil},
		{tar.Header{Typeflag: tar.TypeSymlink, Name: "dangling", Linkname: "/nowhere", Mode: 0o777}, nil},
		{tar.Header{Typeflag: tar.TypeLink, Name: "d/hard", Linkname: "small", Mode: 0o640}, nil},
		{tar.Header{Typeflag: tar.TypeLink, Name: "d/hard2", Linkname: "d/hard", Mode: 0o640}, nil},
		{tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o620}, nil},
		{tar.Header{Typeflag: tar.TypeChar, Name: "char", Mode: 0o666, Devmajor: 1, Devminor: 3}, nil},
		{tar.Header{Typeflag: tar.TypeBlock, Name: "block", Mode: 0o660, Devmajor: 7, Devminor: 300}, nil},
		{tar.Header{Typeflag: tar.TypeReg, Name: "owned", Mode: 0o600, Uid: 1234, Gid: 65534}, []byte("o")},
		{tar.Header{Typeflag: tar.TypeReg, Name: "epoch", Mode: 0o600, ModTime: time.Unix(0, 0)}, []byte("e")},
		{tar.Header{Typeflag: tar.TypeReg, Name: "capable", Mode: 0o755, PAXRecords: map[string]string{
			"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "SCHILY.xattr.user.note": "v",
		}}, []byte("c")},
	}
	for i := range 300 {
		list = append(list, file(fmt.Sprintf("many/%03d", i), 0o644, random(i)))
	}
	return append(list, file("larger", 0o644, random(compress.LargeBytes)), file("behind", 0o644, []byte("b")), file("empty at the end", 0o644, nil))
}

// TestTree compares what is shown with what unpacking makes, path by path.
func TestTree(t *testing.T) {
	needMounts(t)
	t.Run("eStargz", func(t *testing.T) { testTree(t, estargzOf) })
	t.Run("of a cache", func(t *testing.T) { testTree(t, cachedOf) })
}

func testTree(t *testing.T, compressed func(*testing.T, []byte) *blob) {
	raw := archived(t, everything())
	o := mounted(t, compressed(t, raw))
	dir := t.TempDir()
	if _, err := archive.Apply(t.Context(), dir, bytes.NewReader(raw), archive.WithConvertWhiteout(archive.OverlayConvertWhiteout)); err != nil {
		t.Fatal(err)
	}
	want, got := describe(t, dir), describe(t, o.dir)
	for _, name := range append(slices.Sorted(keys(want)), slices.Sorted(keys(got))...) {
		if name == "without" || name == "." { // not of the archive: of the time of unpacking
			continue
		}
		if want[name] != got[name] {
			t.Errorf("%q\nis   %s\nwant %s", name, got[name], want[name])
		}
	}
	if len(o.failed) > 0 {
		t.Error(o.failed)
	}
}

func keys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// describe returns all that can be seen of each file below a directory.
func describe(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return fmt.Errorf("lstat %s: %w", path, err)
		}
		d := fmt.Sprintf("mode %o owner %d:%d rdev %x", st.Mode, st.Uid, st.Gid, st.Rdev)
		kind := st.Mode & unix.S_IFMT
		if kind != unix.S_IFCHR || st.Rdev != 0 { // overlayfs does not look at the time of a whiteout
			d += fmt.Sprintf(" time %d", st.Mtim.Sec)
		}
		switch kind {
		case unix.S_IFDIR:
		case unix.S_IFREG:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			d += fmt.Sprintf(" links %d bytes %d %x", st.Nlink, st.Size, b[:min(len(b), 64)])
			for i := 64; i < len(b); i += 997 {
				d += fmt.Sprintf("%x", b[i])
			}
		case unix.S_IFLNK:
			l, err := os.Readlink(path)
			if err != nil {
				return err
			}
			d += fmt.Sprintf(" bytes %d to %s", st.Size, l)
		}
		names := make([]byte, 4096)
		n, err := unix.Llistxattr(path, names)
		if err != nil {
			return fmt.Errorf("listxattr %s: %w", path, err)
		}
		list := strings.Split(strings.TrimRight(string(names[:n]), "\x00"), "\x00")
		slices.Sort(list)
		for _, name := range list {
			if name == "" {
				continue
			}
			v := make([]byte, 4096)
			n, err := unix.Lgetxattr(path, name, v)
			if err != nil {
				return fmt.Errorf("getxattr %s %s: %w", path, name, err)
			}
			d += fmt.Sprintf(" %s=%x", name, v[:n])
		}
		all[rel] = d
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestFetched reads one small file of a large layer.
func TestFetched(t *testing.T) {
	needMounts(t)
	b := estargzOf(t, archived(t, []entry{
		{tar.Header{Typeflag: tar.TypeReg, Name: "a", Mode: 0o644}, random(8 << 20)},
		{tar.Header{Typeflag: tar.TypeReg, Name: "b", Mode: 0o644}, []byte("b")},
		{tar.Header{Typeflag: tar.TypeReg, Name: "c", Mode: 0o644}, random(8<<20 + 1)},
	}))
	o := mounted(t, b)
	if got, err := os.ReadFile(filepath.Join(o.dir, "b")); err != nil || string(got) != "b" {
		t.Errorf("got %q, %v", got, err)
	}
	if most := int64(tailBytes + minWindow + 2*partBytes); b.fetched > most {
		t.Errorf("fetched %d bytes, want at most %d", b.fetched, most)
	}
	if got, err := os.ReadFile(filepath.Join(o.dir, "c")); err != nil || !bytes.Equal(got, random(8<<20+1)) {
		t.Errorf("c: %d bytes, %v", len(got), err)
	}
	if o.blob.FetchedSize() > int64(len(b.bytes)) || b.fetched > int64(len(b.bytes)) {
		t.Errorf("fetched %d of %d bytes", b.fetched, len(b.bytes))
	}
}

// TestDamaged reads what is not what the table says, and what can't be fetched: an error, and no byte of it.
func TestDamaged(t *testing.T) {
	needMounts(t)
	list := []entry{
		{tar.Header{Typeflag: tar.TypeReg, Name: "bad", Mode: 0o644}, random(1 << 20)},
		{tar.Header{Typeflag: tar.TypeReg, Name: "good", Mode: 0o644}, random(3 << 20)},
	}
	t.Run("altered", func(t *testing.T) {
		b := estargzOf(t, archived(t, list))
		for i := 300 << 10; i < 310<<10; i++ {
			b.bytes[i] ^= 0x55
		}
		o := mounted(t, b)
		if got, err := os.ReadFile(filepath.Join(o.dir, "bad")); !errors.Is(err, unix.EIO) {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
		if len(o.failed) == 0 || !strings.Contains(o.failed[0], "/bad") {
			t.Errorf("told %q", o.failed)
		}
		if got, err := os.ReadFile(filepath.Join(o.dir, "good")); err != nil || !bytes.Equal(got, random(3<<20)) {
			t.Errorf("good: %d bytes, %v", len(got), err)
		}
	})
	t.Run("altered, of a cache", func(t *testing.T) { // several files are in one frame: none of them is given out
		b := cachedOf(t, archived(t, slices.Concat([]entry{
			{tar.Header{Typeflag: tar.TypeReg, Name: "first", Mode: 0o644}, random(1000)}, {tar.Header{Typeflag: tar.TypeReg, Name: "second", Mode: 0o644}, random(2000)},
		}, list, []entry{{tar.Header{Typeflag: tar.TypeReg, Name: "large", Mode: 0o644}, random(compress.LargeBytes)}})))
		for i := 2000; i < 2010; i++ {
			b.bytes[i] ^= 0x55
		}
		o := mounted(t, b)
		for _, name := range []string{"second", "bad"} {
			if got, err := os.ReadFile(filepath.Join(o.dir, name)); !errors.Is(err, unix.EIO) {
				t.Errorf("%s: got %d bytes, %v", name, len(got), err)
			}
		}
		if got, err := os.ReadFile(filepath.Join(o.dir, "good")); err != nil || !bytes.Equal(got, random(3<<20)) {
			t.Errorf("good: %d bytes, %v", len(got), err)
		}
	})
	t.Run("another content", func(t *testing.T) { // well compressed, at the same places, under the table of the first
		b := estargzOf(t, archived(t, list))
		other := slices.Clone(list)
		other[0].content = slices.Clone(list[0].content)
		slices.Reverse(other[0].content)
		o := estargzOf(t, archived(t, other))
		table, _, err := estargz.OpenFooter(io.NewSectionReader(bytes.NewReader(b.bytes), 0, int64(len(b.bytes))))
		if err != nil || len(o.bytes) < int(table) {
			t.Fatal(err)
		}
		copy(b.bytes[:table], o.bytes)
		m := mounted(t, b)
		if got, err := os.ReadFile(filepath.Join(m.dir, "bad")); !errors.Is(err, unix.EIO) {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
		if len(m.failed) == 0 || !strings.Contains(m.failed[0], "not verified") {
			t.Errorf("told %q", m.failed)
		}
	})
	t.Run("gone", func(t *testing.T) {
		b := estargzOf(t, archived(t, list))
		o := mounted(t, b)
		b.mu.Lock()
		b.broken = func(int64, int64) ([]byte, error) { return nil, errors.New("gone") }
		b.mu.Unlock()
		if got, err := os.ReadFile(filepath.Join(o.dir, "bad")); !errors.Is(err, unix.EIO) {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
		b.mu.Lock()
		b.broken = nil
		b.mu.Unlock()
		if got, err := os.ReadFile(filepath.Join(o.dir, "bad")); err != nil || !bytes.Equal(got, random(1<<20)) {
			t.Errorf("when it is back: %d bytes, %v", len(got), err)
		}
	})
	t.Run("another table", func(t *testing.T) {
		b := estargzOf(t, archived(t, list))
		b.toc = estargzOf(t, archived(t, list[:1])).toc
		if _, err := open(t, b); err == nil {
			t.Error("it was opened")
		}
	})
}

// TestFooter has blobs of zstd:chunked whose last bytes say that the table is elsewhere.
func TestFooter(t *testing.T) {
	for what, alter := range map[string]func(at, size *uint64){
		"behind the end":       func(at, _ *uint64) { *at = 1 << 40 },
		"before the beginning": func(at, _ *uint64) { *at = 1 << 63 },
		"too large":            func(_, size *uint64) { *size = 1 << 40 },
		"of negative size":     func(_, size *uint64) { *size = 1 << 63 },
		"of no size":           func(_, size *uint64) { *size = 0 },
	} {
		t.Run(what, func(t *testing.T) {
			b := cachedOf(t, archived(t, []entry{{tar.Header{Typeflag: tar.TypeReg, Name: "large", Mode: 0o644}, random(compress.LargeBytes)}}))
			footer := b.bytes[len(b.bytes)-zstdchunked.FooterSize:]
			at, size := binary.LittleEndian.Uint64(footer), binary.LittleEndian.Uint64(footer[8:])
			alter(&at, &size)
			binary.LittleEndian.PutUint64(footer, at)
			binary.LittleEndian.PutUint64(footer[8:], size)
			if _, err := open(t, b); !errors.Is(err, ErrUnfit) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestUnfit has layers that are not what unpacking would make of them, or that would be taken for something else.
func TestUnfit(t *testing.T) {
	for what, e := range map[string]entry{
		"a mark of overlayfs":   {tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o755, PAXRecords: map[string]string{"SCHILY.xattr.trusted.overlay.redirect": "/etc"}}, nil},
		"the state directory":   {tar.Header{Typeflag: tar.TypeReg, Name: ".stargz-snapshotter", Mode: 0o644}, nil},
		"a link to itself":      {tar.Header{Typeflag: tar.TypeLink, Name: "a", Linkname: "a"}, nil},
		"a directory in itself": {tar.Header{Typeflag: tar.TypeLink, Name: "d/x", Linkname: "d"}, nil},
	} {
		t.Run(what, func(t *testing.T) {
			if _, err := open(t, estargzOf(t, archived(t, []entry{e}))); !errors.Is(err, ErrUnfit) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestHostile has blobs at which the library panics, or would not end.
func TestHostile(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	w := tar.NewWriter(z)
	const size = maxTableBytes + 1
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: estargz.TOCTarName, Size: size}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(w, io.LimitReader(spaces{}, size)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	valid := estargzOf(t, archived(t, []entry{{tar.Header{Typeflag: tar.TypeReg, Name: "a", Mode: 0o644}, []byte("a")}})).bytes
	footer := bytes.Clone(valid[len(valid)-estargz.FooterSize:])
	copy(footer[16:], fmt.Sprintf("%016x", 0)) // the table begins with the blob
	plain := make([]byte, 4<<10)
	copy(plain[len(plain)-estargz.FooterSize:], []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff})
	for what, b := range map[string][]byte{
		"much of nothing":              append(bomb.Bytes(), footer...),
		"a header without extra field": plain,
		"nothing":                      nil,
	} {
		t.Run(what, func(t *testing.T) {
			_, err := open(t, &blob{bytes: b, toc: digest.FromString("table")})
			if !errors.Is(err, ErrUnfit) {
				t.Errorf("got %v", err)
			}
			t.Log(err)
		})
	}
}

// spaces are what JSON may begin with.
type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestCheckLinks(t *testing.T) {
	for what, c := range map[string]struct {
		entries []tableEntry
		good    bool
	}{
		"a file":                 {[]tableEntry{{"a", "reg", ""}, {"b", typeHardLink, "a"}, {"c", typeHardLink, "/b"}}, true},
		"a symbolic link":        {[]tableEntry{{"a", "symlink", "x"}, {"b", typeHardLink, "a"}}, true},
		"a file in chunks":       {[]tableEntry{{"a", "reg", ""}, {"a", typeChunk, ""}, {"b", typeHardLink, "a"}}, true},
		"nothing":                {[]tableEntry{{"b", typeHardLink, "a"}}, false},
		"itself":                 {[]tableEntry{{"a", typeHardLink, "./a"}}, false},
		"each other":             {[]tableEntry{{"a", typeHardLink, "b"}, {"b", typeHardLink, "a"}}, false},
		"a directory":            {[]tableEntry{{"d", typeDirectory, ""}, {"d/x", typeHardLink, "d"}}, false},
		"one that has no entry":  {[]tableEntry{{"d/e/f", "reg", ""}, {"d/e/x", typeHardLink, "d"}}, false},
		"the root":               {[]tableEntry{{"x", typeHardLink, "/"}}, false},
		"a name that is endless": {[]tableEntry{{strings.Repeat("d/", maxName), typeDirectory, ""}}, false},
	} {
		if err := checkLinks(c.entries); (err == nil) != c.good {
			t.Errorf("%s: %v", what, err)
		}
	}
}
