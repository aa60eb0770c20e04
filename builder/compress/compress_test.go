package compress

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/klauspost/compress/zstd"
)

// layer makes a tar like a layer's from a seed: many small files, some that do not compress, some larger than a chunk, names that need PAX, links and extended attributes.
func layer(tb testing.TB, seed uint64, files int) []byte {
	tb.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	add := func(h tar.Header, body []byte) {
		h.Size = int64(len(body))
		if err := tw.WriteHeader(&h); err != nil {
			tb.Fatal(err)
		}
		if _, err := tw.Write(body); err != nil {
			tb.Fatal(err)
		}
	}
	add(tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o755}, nil)
	large := r.IntN(files) // of many files, one
	for i := range files {
		size := 0
		switch r.IntN(12) {
		case 0:
		case 1:
			size = r.IntN(200_000)
		default:
			size = r.IntN(20_000)
		}
		if i == large && files >= 60 {
			size = 4<<20 + r.IntN(100_000)
		}
		body := text(r, size)
		if r.IntN(5) == 0 {
			fill(r, body)
		}
		h := tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("d/%d", i), Mode: 0o644, Uid: r.IntN(3), Format: tar.FormatPAX}
		switch r.IntN(10) {
		case 0:
			h.Name = "d/" + strings.Repeat("long/", 60) + h.Name
		case 1:
			h.PAXRecords = map[string]string{"SCHILY.xattr.user.a": "1", "SCHILY.xattr.security.capability": "\x01\x00\x00\x02"}
		case 2:
			add(tar.Header{Typeflag: tar.TypeSymlink, Name: h.Name + ".l", Linkname: "/d"}, nil)
			add(tar.Header{Typeflag: tar.TypeFifo, Name: h.Name + ".f"}, nil)
		}
		add(h, body)
		if r.IntN(8) == 0 {
			add(tar.Header{Typeflag: tar.TypeLink, Name: h.Name + ".h", Linkname: h.Name}, nil)
		}
	}
	if err := tw.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func text(r *rand.Rand, size int) []byte {
	words := strings.Fields("the layer of a file in which import return func lib usr share 0 1 { } ;")
	var b []byte
	for len(b) < size {
		b = append(append(append(b, words[r.IntN(len(words))]...), ' '), words[r.IntN(len(words))]...)
		b = append(strconv.AppendInt(b, r.Int64N(1000), 10), '\n')
	}
	return b[:size]
}

func fill(r *rand.Rand, b []byte) {
	for i := range b {
		b[i] = byte(r.Uint32())
	}
}

func compressed(tb testing.TB, f Format, level *int, o Options, in []byte, piece int) []byte {
	tb.Helper()
	var out bytes.Buffer
	w, err := Writer(&out, f, level, o)
	if err != nil {
		tb.Fatal(err)
	}
	for len(in) > 0 {
		n := min(piece, len(in))
		if _, err := w.Write(in[:n]); err != nil {
			tb.Fatal(err)
		}
		in = in[n:]
	}
	for range 2 { // the second does nothing
		if err := w.Close(); err != nil {
			tb.Fatal(err)
		}
	}
	return out.Bytes()
}

// plainText decompresses with other code than what was compressed with, where there is any.
func plainText(tb testing.TB, f Format, blob []byte) []byte {
	tb.Helper()
	var r io.Reader = bytes.NewReader(blob)
	switch f {
	case Gzip:
		zr, err := gzip.NewReader(r)
		if err != nil {
			tb.Fatal(err)
		}
		r = zr
	case EStargz:
		rc, err := estargz.Unpack(io.NewSectionReader(bytes.NewReader(blob), 0, int64(len(blob))), new(estargz.GzipDecompressor))
		if err != nil {
			tb.Fatal(err)
		}
		r = rc
	case Zstd, ZstdChunked:
		zr, err := zstd.NewReader(r)
		if err != nil {
			tb.Fatal(err)
		}
		defer zr.Close()
		r = zr
	}
	out, err := io.ReadAll(r)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func levels(f Format) (list []*int) {
	list = []*int{nil}
	if lowest, highest, _ := f.Levels(); highest > 0 {
		for _, l := range []int{lowest, 7, min(highest, 11)} {
			list = append(list, &l)
		}
	}
	return list
}

func TestRoundTrip(t *testing.T) {
	small := layer(t, 1, 40)
	for _, f := range Formats() {
		for _, level := range levels(f) {
			for name, in := range map[string][]byte{
				"small": small, "empty archive": make([]byte, 1024), "block": append(bytes.Clone(small), make([]byte, minPiece-len(small)%minPiece)...),
			} {
				if got := plainText(t, f, compressed(t, f, level, Options{}, in, 32<<10)); !bytes.Equal(got, in) {
					t.Errorf("%s of %s: %d bytes came back from %d", Key(f, level), name, len(got), len(in))
				}
			}
		}
	}
}

func TestEmpty(t *testing.T) {
	for _, f := range []Format{Gzip, Zstd} {
		if got := plainText(t, f, compressed(t, f, nil, Options{}, nil, 1)); len(got) != 0 {
			t.Errorf("%s: %q", f, got)
		}
	}
}

// The same bytes come out whatever the cores, the writes and what the pooled compressors did before.
func TestDeterministic(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	other, in := layer(t, 9, 40), layer(t, 1, 60)
	for _, f := range []Format{Gzip, Zstd, EStargz, ZstdChunked} {
		runtime.GOMAXPROCS(2)
		want := compressed(t, f, nil, Options{}, in, 32<<10)
		for _, cores := range []int{1, 2, 8} {
			runtime.GOMAXPROCS(cores)
			if got := compressed(t, f, nil, Options{}, in, 1000*cores+1); !bytes.Equal(got, want) {
				t.Errorf("%s on %d cores: other bytes", f, cores)
			}
		}
		compressed(t, f, nil, Options{}, other, 1<<20) // in the same compressors
		if got := compressed(t, f, nil, Options{Cores: 3}, in, 70_000); !bytes.Equal(got, want) {
			t.Errorf("%s after other input, on 3 of 8 cores: other bytes", f)
		}
	}
}

// What is made of a certain input. If this fails, klauspost/compress or this package makes other bytes now: count Version up, and note the new sums.
func TestVersion(t *testing.T) {
	in := layer(t, 7, 300)
	got := fmt.Sprintf("version %d\ninput %x\n", Version, sha256.Sum256(in))
	for _, f := range []Format{Gzip, Zstd, EStargz, ZstdChunked} {
		for _, level := range levels(f) {
			got += fmt.Sprintf("%s %x\n", Key(f, level), sha256.Sum256(compressed(t, f, level, Options{}, in, 1<<20)))
		}
	}
	if want := versionSums; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// full is a writer that fails after some bytes.
type full struct{ left int }

var errFull = errors.New("no space left")

func (w *full) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestWriteFails(t *testing.T) {
	in := layer(t, 4, 150)
	for _, f := range []Format{Gzip, Zstd, EStargz, ZstdChunked} {
		for _, left := range []int{0, 5, 100_000, 1 << 20} {
			w, err := Writer(&full{left}, f, nil, Options{Cores: 2})
			if err == nil {
				_, err = io.Copy(w, bytes.NewReader(in))
				if closeErr := w.Close(); err == nil {
					err = closeErr
				}
			}
			if !errors.Is(err, errFull) {
				t.Errorf("%s with room for %d: %v", f, left, err)
			}
		}
	}
}

func TestFormats(t *testing.T) {
	for _, f := range Formats() {
		if got, err := Parse(string(f)); got != f || err != nil {
			t.Errorf("%s: %s, %v", f, got, err)
		}
		if lowest, highest, usual := f.Levels(); highest > 0 && (f.CheckLevel(lowest) != nil || f.CheckLevel(usual) != nil || f.CheckLevel(highest+1) == nil) {
			t.Errorf("levels of %s", f)
		}
	}
	for _, s := range []string{"", "GZIP", "brotli", "zstd:chunk"} {
		if got, err := Parse(s); err == nil {
			t.Errorf("%q is %s", s, got)
		}
	}
	two := 2
	if Key(Gzip, nil) == Key(Gzip, &two) || Key(Gzip, nil) == Key(EStargz, nil) || Key(Uncompressed, &two) != "uncompressed" {
		t.Error("keys of different blobs are equal, or of equal ones different")
	}
}

const versionSums = `version 2
input 7acf978457f2aef2a6008cc01c408c43b51c447eb796edc7a64e412f98f38c11
gzip-6-v2 d1f4d6c06bc131321dd75760a2cb2cc528c28e9da94e93900f365c535779e9f6
gzip-0-v2 314967734d481387d33266297374364563fdfec031764dfe0ba8bc8f1cc3f4b2
gzip-7-v2 3cbd10c492c0cd376674ee60294ce2725c8075316b8759d290de64d148b8a815
gzip-9-v2 5bf4d6725c3732b5e65101cd6b33f32ad3f89393d62d0c39d3d10d3235f4872e
zstd-3-v2 f77f4845b557c7df83f858417fdd63f22f3edb284929d13a017e5d75d1bc3082
zstd-1-v2 761bcbe78d0b7ff5d12cd16aeb6f13b86badbf6916373d07bea27a36c8ef0c02
zstd-7-v2 697f7d5492da86f7765c8f871e94e50b1c30515c95dd34439c084d2e7cc4b534
zstd-11-v2 37db4a78662f9435e728453feeb4290a1b60a1caf51605a96cffd0d71324ff36
estargz-6-v2 021f02fa2a34ab52ea8dc095a65d5ac66578f21759f330252360837b6dbd17e7
estargz-0-v2 de422fee239f5de82300a0e5e449fa336d183d1e6334b399906ec9bfe8bda4b4
estargz-7-v2 7fef9b403214067713e0257a1be155d574a4c3facf04fb64541e57098a7b5d96
estargz-9-v2 93ced3252a98f2449aa7f9c6ac11f7c3ae5f322e2ebc3ba2005b40b9b81000a1
zstd:chunked-3-v2 bd54af85d0db3a363062786f5980c624fb5a5d60d08a3c7e5c75c296fa0ccd7e
zstd:chunked-1-v2 9eaae204a2c60e2ab69f9c5ef37c503870882af2d8cf5bc32ffa9fa73cfe623d
zstd:chunked-7-v2 f11bcb5689426e3ecedc615a8f313422d6129a42f2a378afb2fd0050fd751a28
zstd:chunked-11-v2 7e9935082c0dd989b1f6a9d8bd53f0ef2c3867e4e14d6212ba055d6831a6af6d
`
