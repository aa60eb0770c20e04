package compress

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/moby/buildkit/util/compression"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// A landmark is a file in an eStargz layer that says how much of it is fetched at once. It is no file of the image: in another format it says nothing, and would be one.

// DropLandmark returns a layer without a landmark. One that has one is written to the store as a tar; any other layer comes back as it is.
func DropLandmark(ctx context.Context, blobs content.Store, d ocispecs.Descriptor) (ocispecs.Descriptor, error) {
	if is, err := compression.EStargz.Is(ctx, blobs, d.Digest); err != nil || !is {
		return d, err
	}
	ra, err := blobs.ReaderAt(ctx, d)
	if err != nil {
		return d, err
	}
	defer ra.Close()
	r, err := estargz.Open(io.NewSectionReader(ra, 0, ra.Size()))
	if err != nil {
		return d, fmt.Errorf("read eStargz: %w", err)
	}
	_, prefetch := r.Lookup(estargz.PrefetchLandmark)
	_, none := r.Lookup(estargz.NoPrefetchLandmark)
	if !prefetch && !none {
		return d, nil
	}
	in, err := compression.EStargz.Decompress(ctx, blobs, d)
	if err != nil {
		return d, err
	}
	defer in.Close()
	w, err := content.OpenWriter(ctx, blobs, content.WithRef("optbuild-landmark-"+d.Digest.Encoded()))
	if err != nil {
		return d, err
	}
	defer w.Close()
	if err := w.Truncate(0); err != nil { // what another time has left
		return d, err
	}
	sum := digest.Canonical.Digester()
	var size countedBytes
	if err := withoutLandmarks(io.MultiWriter(w, sum.Hash(), &size), in); err != nil {
		return d, err
	}
	out := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayer, Digest: sum.Digest(), Size: int64(size)}
	err = w.Commit(ctx, out.Size, out.Digest, content.WithLabels(map[string]string{labels.LabelUncompressed: out.Digest.String()}))
	if errdefs.IsAlreadyExists(err) {
		err = nil
	}
	return out, err
}

type countedBytes int64

func (c *countedBytes) Write(p []byte) (int, error) {
	*c += countedBytes(len(p))
	return len(p), nil
}

// withoutLandmarks copies an archive but for landmarks; all other bytes stay what they are.
func withoutLandmarks(dst io.Writer, src io.Reader) error {
	const block = 512
	t := &tee{r: src, dst: dst}
	mark := false
	for r := tar.NewReader(t); ; {
		// What is read now is what fills up the last block of the entry before, and this one's headers.
		padding := int((block - t.passed%block) % block)
		t.hold = true
		h, err := r.Next()
		if mark {
			t.held.Next(padding)
			t.dst, padding = dst, 0
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read layer: %w", err)
		}
		name := path.Clean(h.Name)
		if mark = name == estargz.PrefetchLandmark || name == estargz.NoPrefetchLandmark; mark {
			t.held.Truncate(padding)
		}
		if err := t.release(); err != nil {
			return err
		}
		if mark {
			t.dst = io.Discard
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			return fmt.Errorf("read layer: %w", err)
		}
	}
	if err := t.release(); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, t) // what stands behind the end
	return err
}

// tee copies what is read of an archive, or holds it.
type tee struct {
	r      io.Reader
	dst    io.Writer
	hold   bool
	held   bytes.Buffer
	passed int64 // bytes since release
}

func (t *tee) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if t.hold {
		t.held.Write(p[:n])
		return n, err
	}
	t.passed += int64(n)
	if _, werr := t.dst.Write(p[:n]); werr != nil {
		return n, werr
	}
	return n, err
}

// release copies what was held, and holds no more.
func (t *tee) release() error {
	t.hold, t.passed = false, 0
	_, err := t.held.WriteTo(t.dst)
	t.held.Reset()
	return err
}
