package compress

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/moby/buildkit/util/compression"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// First returns eStargz with the given files, as far as a layer has them, in front of the others and in this order, and a landmark file behind them: a snapshotter fetches
// what is in front of it at once. Other compressions stay as they are.
func First(t compression.Type, names []string) (compression.Type, error) {
	s, ok := t.(stargz)
	if !ok || len(names) == 0 {
		return t, nil
	}
	list, err := json.Marshal(names)
	if err != nil {
		return nil, err
	}
	return firstStargz{s, names, digest.FromBytes(list)}, nil
}

type firstStargz struct {
	stargz
	names []string
	list  digest.Digest // of names
}

// String names the list, too: whoever keeps blobs by the name of their compression must not take one with another order.
func (t firstStargz) String() string { return t.stargz.String() + "-" + t.list.Encoded()[:16] }

// firstLabel is the label of a blob with the digest of the list that it was ordered by.
const firstLabel = "optbuild.estargz.first"

// NeedsConversion is true of eStargz in an order that was asked for.
func (t stargz) NeedsConversion(ctx context.Context, blobs content.Store, d ocispecs.Descriptor) (bool, error) {
	if needs, err := t.Type.NeedsConversion(ctx, blobs, d); needs || err != nil {
		return needs, err
	}
	info, err := blobs.Info(ctx, d.Digest)
	return err == nil && info.Labels[firstLabel] != "", nil
}

// NeedsConversion is true of eStargz in another order.
func (t firstStargz) NeedsConversion(ctx context.Context, blobs content.Store, d ocispecs.Descriptor) (bool, error) {
	if needs, err := t.Type.NeedsConversion(ctx, blobs, d); needs || err != nil {
		return needs, err
	}
	info, err := blobs.Info(ctx, d.Digest)
	if err != nil {
		return true, nil // it is at its registry only
	}
	return info.Labels[firstLabel] != t.list.String(), nil
}

func (t firstStargz) Compress(_ context.Context, c compression.Config) (compression.Compressor, compression.Finalizer) {
	return compressStargz(t.MediaType(), func(dst io.Writer) *stargzWriter {
		level, cores := EStargz.level(c.Level), t.options.cores()
		return startStargz(func(r io.Reader) (sums, error) { return writeFirst(dst, r, t.names, level, cores) })
	}, map[string]string{firstLabel: t.list.String()})
}

// writeFirst writes a blob of a tar whose files are put into another order, for which it has to be in a file.
func writeFirst(dst io.Writer, r io.Reader, names []string, level, cores int) (s sums, err error) {
	f, err := os.CreateTemp("", "optbuild-layer-")
	if err != nil {
		return s, err
	}
	defer func() {
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	}()
	size, err := io.Copy(f, r)
	if err != nil {
		return s, err
	}
	var missing []string
	// The library sorts and divides the archive, and compresses the parts; here it writes them as they are. It leaves out what ends an archive.
	sorted, err := estargz.Build(io.NewSectionReader(f, 0, size), estargz.WithPrioritizedFiles(names), estargz.WithAllowPrioritizeNotFound(&missing), estargz.WithCompression(none{}))
	if err != nil {
		return s, fmt.Errorf("sort files of eStargz: %w", err)
	}
	defer sorted.Close()
	return writeStargz(dst, io.MultiReader(sorted, endOfTar()), level, cores)
}

// endOfTar are the two empty records that end an archive.
func endOfTar() io.Reader {
	const record = 512
	return io.LimitReader(zeros{}, 2*record)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// none is a compression that leaves everything as it is, and writes no table.
type none struct{ *estargz.GzipDecompressor }

func (none) Writer(w io.Writer) (estargz.WriteFlushCloser, error) { return plainMember{w}, nil }

func (none) Reader(r io.Reader) (io.ReadCloser, error) { return io.NopCloser(r), nil }

func (none) WriteTOCAndFooter(io.Writer, int64, *estargz.JTOC, hash.Hash) (digest.Digest, error) {
	return "", nil
}

type plainMember struct{ io.Writer }

func (plainMember) Flush() error { return nil }
func (plainMember) Close() error { return nil }

var _ estargz.Compression = none{}
