package analyze

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is one image of one platform, and where its blobs come from.
type Image struct {
	Name     string
	Digest   digest.Digest // of the manifest
	Manifest ocispecs.Manifest
	Config   ocispecs.Image
	RawConf  json.RawMessage // the configuration as it is stored
	Blobs    content.Provider
}

// ErrNoPlatform is wrapped by the error of opening an image that there is not for the platform.
var ErrNoPlatform = errors.New("no image for platform")

// maxJSON bounds an index, a manifest or a configuration, which are read into memory.
const maxJSON = 8 << 20

// Open reads the manifest and the configuration of the image at target, an index or a manifest. p is the platform to take;
// nil takes the one that fits the host best, or the only one.
func Open(ctx context.Context, name string, blobs content.Provider, target ocispecs.Descriptor, p *ocispecs.Platform) (Image, error) {
	im := Image{Name: name, Blobs: blobs}
	found, err := im.candidates(ctx, target, 0)
	if err != nil {
		return im, fmt.Errorf("open %s: %w", name, err)
	}
	match := platforms.Default()
	if p != nil {
		match = platforms.OnlyStrict(*p)
	}
	best := slices.DeleteFunc(slices.Clone(found), func(d ocispecs.Descriptor) bool { return d.Platform != nil && !match.Match(*d.Platform) })
	if len(best) == 0 && p == nil && len(found) == 1 {
		best = found
	}
	if len(best) == 0 {
		want := platforms.DefaultString()
		if p != nil {
			want = platforms.FormatAll(*p)
		}
		return im, fmt.Errorf("open %s: %w %s", name, ErrNoPlatform, want)
	}
	slices.SortStableFunc(best, func(a, b ocispecs.Descriptor) int {
		switch {
		case a.Platform == nil || b.Platform == nil:
			return 0
		case match.Less(*a.Platform, *b.Platform):
			return -1
		case match.Less(*b.Platform, *a.Platform):
			return 1
		}
		return 0
	})
	if err := im.read(ctx, best[0]); err != nil {
		return im, fmt.Errorf("open %s: %w", name, err)
	}
	if p != nil && !match.Match(platforms.Normalize(im.Config.Platform)) {
		return im, fmt.Errorf("open %s: %w %s", name, ErrNoPlatform, platforms.FormatAll(*p))
	}
	return im, nil
}

// OpenAll opens the images of all platforms, in the order of the index.
func OpenAll(ctx context.Context, name string, blobs content.Provider, target ocispecs.Descriptor) ([]Image, error) {
	found, err := Image{Blobs: blobs}.candidates(ctx, target, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	all := make([]Image, len(found))
	for i, d := range found {
		all[i] = Image{Name: name, Blobs: blobs}
		if err := all[i].read(ctx, d); err != nil {
			return nil, fmt.Errorf("open %s: %w", name, err)
		}
	}
	return all, nil
}

// read fills in what the manifest at d and its configuration say.
func (im *Image) read(ctx context.Context, d ocispecs.Descriptor) (err error) {
	im.Digest = d.Digest
	if _, err = im.decode(ctx, d, &im.Manifest); err == nil {
		im.RawConf, err = im.decode(ctx, im.Manifest.Config, &im.Config)
	}
	return err
}

// candidates are the manifests that a target reaches, without attestations.
func (im Image) candidates(ctx context.Context, d ocispecs.Descriptor, depth int) (list []ocispecs.Descriptor, err error) {
	switch {
	case d.Annotations["vnd.docker.reference.type"] == "attestation-manifest":
		return nil, nil
	case images.IsManifestType(d.MediaType):
		return []ocispecs.Descriptor{d}, nil
	case !images.IsIndexType(d.MediaType) || depth > 3:
		return nil, fmt.Errorf("%s is of type %q: neither an index nor a manifest", d.Digest, d.MediaType)
	}
	var index ocispecs.Index
	if _, err := im.decode(ctx, d, &index); err != nil {
		return nil, err
	}
	for _, m := range index.Manifests {
		more, err := im.candidates(ctx, m, depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	return list, nil
}

// decode reads a blob that describes others, and checks it.
func (im Image) decode(ctx context.Context, d ocispecs.Descriptor, v any) ([]byte, error) {
	if d.Size > maxJSON {
		return nil, fmt.Errorf("%s (%s) has %d bytes: too many", d.Digest, d.MediaType, d.Size)
	}
	b, err := content.ReadBlob(ctx, im.Blobs, d)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", d.Digest, err)
	}
	if d.Digest.Validate() != nil || d.Digest.Algorithm().FromBytes(b) != d.Digest {
		return nil, fmt.Errorf("%s (%s) is damaged", d.Digest, d.MediaType)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return nil, fmt.Errorf("decode %s (%s): %w", d.Digest, d.MediaType, err)
	}
	return b, nil
}

// blobBuffer is what is asked for at once of a store that is behind a socket.
const blobBuffer = 1 << 20

// layer is the tar stream of one layer. Its end is not EOF unless the blob has its digest.
type layer struct {
	io.Reader
	close func()
}

// openLayer begins to read a layer.
func (im Image) openLayer(ctx context.Context, d ocispecs.Descriptor) (*layer, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q: %w", d.Digest, err)
	}
	ra, err := im.Blobs.ReaderAt(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", d.Digest, err)
	}
	blob := bufio.NewReaderSize(&checked{r: content.NewReader(ra), verifier: d.Digest.Verifier(), d: d}, blobBuffer)
	plain, end, err := decompress(blob)
	if err != nil {
		ra.Close()
		return nil, fmt.Errorf("decompress %s: %w", d.Digest, err)
	}
	return &layer{plain, func() { end(); ra.Close() }}, nil
}

// rest reads what comes after the end of the tar: it is part of the digest.
func (l *layer) rest() error {
	_, err := io.Copy(io.Discard, l)
	return err
}

// checked compares what it read with the digest when it is at the end.
type checked struct {
	r        io.Reader
	verifier digest.Verifier
	d        ocispecs.Descriptor
	n        int64
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	_, _ = c.verifier.Write(p[:n])
	if errors.Is(err, io.EOF) && (c.n != c.d.Size || !c.verifier.Verified()) {
		return n, fmt.Errorf("layer %s is damaged", c.d.Digest)
	}
	return n, err
}

// decompress recognises what layers are compressed with. In-process decompressors only: programs that happen to be installed would
// make a difference between machines.
func decompress(r *bufio.Reader) (plain io.Reader, end func(), err error) {
	head, err := r.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(r)
		return &drained{z, r}, func() {}, err
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}), len(head) == 4 && head[0]>>4 == 5 && bytes.Equal(head[1:], []byte{0x2a, 0x4d, 0x18}):
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxMemory(1<<30))
		if err != nil {
			return nil, nil, err
		}
		return &drained{z, r}, z.Close, nil
	}
	return r, func() {}, nil
}

// drained reads the compressed stream to its end before it says that the plain one has ended, so that the digest is checked.
type drained struct {
	io.Reader
	blob io.Reader
}

func (d *drained) Read(p []byte) (int, error) {
	n, err := d.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		if _, err := io.Copy(io.Discard, d.blob); err != nil {
			return n, err
		}
	}
	return n, err
}
