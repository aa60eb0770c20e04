package unpack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func zip(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.HuffmanOnly) // fast
	must(t, err)
	_, err = w.Write(data)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

// some is data that is compressed, but not to nothing.
func some(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 0, n+8)
	for len(b) < n {
		b = binary.LittleEndian.AppendUint64(b, r.Uint64()&0x0f0f0f0f0f0f0f0f)
	}
	return b[:n]
}

// TestOpen compares with what was compressed.
func TestOpen(t *testing.T) {
	var zst bytes.Buffer
	w, err := zstd.NewWriter(&zst)
	must(t, err)
	_, err = w.Write([]byte("zstd"))
	must(t, err)
	must(t, w.Close())
	for name, c := range map[string]struct{ in, want []byte }{
		"empty":          {zip(t, nil), nil},
		"a byte":         {zip(t, []byte("x")), []byte("x")},
		"a block":        {zip(t, some(blockBytes)), some(blockBytes)},
		"many blocks":    {zip(t, some(blocks*blockBytes*2+1)), some(blocks*blockBytes*2 + 1)},
		"two members":    {append(zip(t, []byte("one")), zip(t, []byte("two"))...), []byte("onetwo")},
		"not compressed": {[]byte("plain"), []byte("plain")},
		"nothing":        {nil, nil},
		"zstd":           {zst.Bytes(), []byte("zstd")},
	} {
		r, err := open(bytes.NewReader(c.in))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, c.want) {
			t.Errorf("%s: %d bytes, want %d; %v", name, len(got), len(c.want), err)
		}
		if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("%s: after the end %d, %v", name, n, err)
		}
		must(t, r.Close())
	}
}

// TestOpenDamaged: what is damaged is an error wherever it is, never a shorter layer.
func TestOpenDamaged(t *testing.T) {
	whole := zip(t, some(3*blockBytes))
	sum := bytes.Clone(whole)
	sum[len(sum)-6] ^= 1
	for name, in := range map[string][]byte{
		"cut in the header": whole[:5], "cut": whole[:len(whole)/2], "cut in the sum": whole[:len(whole)-3],
		"another sum": sum, "something behind it": append(bytes.Clone(whole), "garbage"...),
	} {
		r, err := open(bytes.NewReader(in))
		if err == nil {
			_, err = io.Copy(io.Discard, r)
			must(t, r.Close())
		}
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestCloseEarly: nothing is read from the stream after Close, whatever was read before.
func TestCloseEarly(t *testing.T) {
	data := zip(t, some(2*blocks*blockBytes))
	for _, n := range []int64{0, 1, blockBytes, 3 * blockBytes} {
		in := &counting{r: bytes.NewReader(data)}
		r, err := open(in)
		must(t, err)
		_, err = io.CopyN(io.Discard, r, n)
		must(t, err)
		must(t, r.Close())
		in.closed = true // a read from now on is a race, and panics
		must(t, r.Close())
	}
}

type counting struct {
	r      io.Reader
	closed bool
}

func (c *counting) Read(p []byte) (int, error) {
	if c.closed {
		panic("read after Close")
	}
	return c.r.Read(p)
}

// TestApply: containerd's applier asks us, and unpacks what it unpacks without us.
func TestApply(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("owners, and the mount that it unpacks to, take root")
	}
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	for i := range 300 {
		b := some(i * 97)
		must(t, tw.WriteHeader(&tar.Header{Name: fmt.Sprintf("d/f%03d", i), Mode: 0o640, Uid: i, Size: int64(len(b))}))
		_, err := tw.Write(b)
		must(t, err)
	}
	must(t, tw.Close())
	blob := zip(t, archive.Bytes())

	store, err := local.NewStore(t.TempDir())
	must(t, err)
	for _, mediaType := range []string{ocispecs.MediaTypeImageLayerGzip, images.MediaTypeDockerSchema2LayerGzip} {
		desc := ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
		must(t, content.WriteBlob(t.Context(), store, mediaType, bytes.NewReader(blob), desc))
		dir := t.TempDir()
		Register()
		p, err := diff.GetProcessor(t.Context(), diff.NewProcessorChain(mediaType, bytes.NewReader(blob)), nil)
		must(t, err)
		if _, ok := p.(layer); !ok {
			t.Fatalf("%s is decompressed by a %T", mediaType, p)
		}
		must(t, p.Close())
		d, err := apply.NewFileSystemApplier(store).Apply(t.Context(), desc, []mount.Mount{{Type: "bind", Source: dir, Options: []string{"rw", "rbind"}}})
		must(t, err)
		if want := digest.FromBytes(archive.Bytes()); d.Digest != want || d.Size != int64(archive.Len()) {
			t.Errorf("%s: unpacked %v, want %s of %d bytes", mediaType, d, want, archive.Len())
		}
		b, err := os.ReadFile(filepath.Join(dir, "d/f299"))
		must(t, err)
		if !bytes.Equal(b, some(299*97)) {
			t.Errorf("%s: another content", mediaType)
		}
	}
	p, err := diff.GetProcessor(t.Context(), diff.NewProcessorChain(ocispecs.MediaTypeImageLayer, strings.NewReader("")), nil)
	must(t, err)
	if _, ok := p.(layer); ok {
		t.Error("a layer that is not compressed is decompressed")
	}
}
