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
				"small": small, "empty archive": make([]byte, 1024), "block": append(bytes.Clone(small), make([]byte, gzipBlock-len(small)%gzipBlock)...),
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
	in := layer(t, 7, 30)
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

const versionSums = `version 1
input 517ae3e36aee3a1afeb50d435237992589803ee909ff610ffc994ff2e6460977
gzip-6-v1 0fa4ee3cf7b9f21b5cb78571dd9d66b7a474fe6b93cf8cafd701ba23b0987ab4
gzip-0-v1 01f33c3910bd9e28fe3f2d3424a8bc2a09daa228a54054e3fd530f317f0c252c
gzip-7-v1 1e801ee80ed0a954c1c0a1cc3635891abae08d4eb8c83d9d68d058a68be73807
gzip-9-v1 43305c06098d5fbd5574a4e3650b69f95fc40ac5e48049c7e045285dcb12fc4e
zstd-3-v1 4225e1757e3f71efd7876069b9f13698463245675b7f733283b713e7382ee4a2
zstd-1-v1 8441cdffb88b0256ffaa39d458e6f0409e6aade3ffffa539a44c7dcbe7e138f9
zstd-7-v1 ca497ee9a6492fb7ab46f5804b811d9cabfa9c9f53ba2e5a59ae7ff1e992e0e1
zstd-11-v1 c9b49bd6d4c9b0fa3a3c03c9e895fab63dbbb2d2dc402166779e363939e0fe9f
estargz-6-v1 381b7866991da75e8be8d1c2dd773cd17f3a096c9e833b844980eb6dad2df120
estargz-0-v1 e6b9c40aec49a22ea714d311d65f21829b2e679354a90680f1def39efd621b7b
estargz-7-v1 b404b73acd2dd2ad9f105b104339b79fd622922578086eab07d487c99f829ef8
estargz-9-v1 0159eede4be9fc2bc1df749f54c993001da9f68e0b3a7b1f0ead9d532c4216a3
zstd:chunked-3-v1 2310772a749dba922956fb0a8b7f64ffaa678be2017afe7da002990796ad1172
zstd:chunked-1-v1 b8b1445193c912b1c023c48f19ccdb0d0edcbb2c80c752e84e73bb683eda5425
zstd:chunked-7-v1 f1f5640cfe26bb80e8ecab194104b5e779e70e911051867e118b9e1f87da9ac8
zstd:chunked-11-v1 b2041c6f6d42dd00d101cada27ba73d7c78dd1558250e63bb41374d8ab6c43e8
`
