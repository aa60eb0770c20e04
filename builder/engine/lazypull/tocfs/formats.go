package tocfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/estargz/zstdchunked"
	"github.com/containerd/stargz-snapshotter/metadata"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// maxTableBytes is how large a decompressed table may be: that of some 500,000 files. zstd and gzip make very little of very much, and the table is decompressed before it can be compared with its digest.
const maxTableBytes = 256 << 20

// table returns where the table of contents begins, and how it is decompressed; other if it, and what is in the blob, is not gzip.
func table(blob *io.SectionReader) (at int64, d decompressor, other []metadata.Decompressor, err error) {
	at, _, err = estargz.OpenFooter(blob)
	if err == nil {
		return at, new(estargz.GzipDecompressor), nil, nil
	}
	if blob.Size() < zstdchunked.FooterSize {
		return 0, nil, nil, err
	}
	footer := make([]byte, zstdchunked.FooterSize)
	if _, err := blob.ReadAt(footer, blob.Size()-int64(len(footer))); err != nil && !errors.Is(err, io.EOF) {
		return 0, nil, nil, fmt.Errorf("read the footer: %w", err)
	}
	z := new(chunked)
	_, at, size, notChunked := z.ParseFooter(footer)
	if notChunked != nil {
		return 0, nil, nil, err
	}
	if end := blob.Size() - int64(len(footer)); at < 0 || at >= end || size <= 0 || size > end-at {
		return 0, nil, nil, errors.New("its table is not in it")
	}
	return at, z, []metadata.Decompressor{z}, nil
}

// chunked decompresses zstd:chunked.
type chunked struct{ zstdchunked.Decompressor }

func (d *chunked) ParseTOC(r io.Reader) (*estargz.JTOC, digest.Digest, error) {
	list, err := d.DecompressTOC(r)
	if err != nil {
		return nil, "", err
	}
	defer list.Close()
	bounded := &io.LimitedReader{R: list, N: maxTableBytes}
	sum := digest.Canonical.Digester()
	toc := new(estargz.JTOC)
	read := io.TeeReader(bounded, sum.Hash())
	if err := json.NewDecoder(read).Decode(toc); err != nil {
		return nil, "", fmt.Errorf("read the table of contents: %w", err)
	}
	if _, err := io.Copy(io.Discard, read); err != nil { // the digest is that of all of it
		return nil, "", fmt.Errorf("read the table of contents: %w", err)
	}
	if bounded.N == 0 {
		return nil, "", fmt.Errorf("%w: its table has more than %d bytes", ErrUnfit, maxTableBytes)
	}
	return toc, sum.Digest(), nil
}

// decoders are for files, of which each chunk is decompressed by itself. A new one costs more than most files.
var decoders sync.Pool

func (*chunked) Reader(r io.Reader) (io.ReadCloser, error) {
	d, _ := decoders.Get().(*zstd.Decoder)
	if d == nil {
		var err error
		if d, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(8<<20)); err != nil {
			return nil, err
		}
	}
	if err := d.Reset(r); err != nil {
		decoders.Put(d)
		return nil, err
	}
	return &pooled{d}, nil
}

type pooled struct{ d *zstd.Decoder }

func (p *pooled) Read(b []byte) (int, error) {
	if p.d == nil {
		return 0, errors.New("read from a decoder that was given back")
	}
	return p.d.Read(b)
}

func (p *pooled) Close() error {
	if p.d != nil {
		_ = p.d.Reset(nil)
		decoders.Put(p.d)
		p.d = nil
	}
	return nil
}
