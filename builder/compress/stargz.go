package compress

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/stargz-snapshotter/estargz"
	kgzip "github.com/klauspost/compress/gzip"
	"github.com/moby/buildkit/util/compression"
	"github.com/opencontainers/go-digest"
)

// An eStargz blob is a gzip blob in which each file begins a member of its own, with a table of contents (TOC) as its last file and a footer that says where that is.
// The library writes one member after the other, and its table says where each begins, which is only known when those before it are compressed. So it is given a
// writer that compresses nothing: its table then has places in the tar where those in the blob belong. The members are compressed meanwhile by a
// sequence, and when the library asks for its table to be written, the places are replaced.

// stargzWriter makes an eStargz blob of a tar stream, which the blob contains bit for bit.
type stargzWriter struct {
	tar   *io.PipeWriter
	ended chan struct{} // closed when the blob is complete, or not to be
	sums  sums
	err   error

	once sync.Once
}

// sums are what is told of a finished blob in its annotations.
type sums struct {
	blob, diffID, toc digest.Digest
	uncompressed      int64 // bytes
}

func newStargz(dst io.Writer, level, cores int) *stargzWriter {
	return startStargz(func(r io.Reader) (sums, error) { return writeStargz(dst, r, level, cores) })
}

// startStargz returns a writer to which write reads, in another goroutine.
func startStargz(write func(io.Reader) (sums, error)) *stargzWriter {
	pr, pw := io.Pipe()
	w := &stargzWriter{tar: pw, ended: make(chan struct{})}
	go func() {
		defer close(w.ended)
		w.sums, w.err = write(pr)
		pr.CloseWithError(w.err) // who still writes is told
	}()
	return w
}

func (w *stargzWriter) Write(p []byte) (int, error) { return w.tar.Write(p) }

func (w *stargzWriter) Close() error {
	w.once.Do(func() {
		w.tar.Close()
		<-w.ended
	})
	return w.err
}

func writeStargz(dst io.Writer, r io.Reader, level, cores int) (sums, error) {
	f := memberFormat{
		member: func(out, in *bytes.Buffer) error { return gzipMember(out, in.Bytes(), level) },
		end:    func(toc *estargz.JTOC, at int64) (stargzEnd, error) { return endStargz(toc, at, level) },
	}
	return writeMembers(dst, r, f, cores)
}

// memberFormat is what a blob of members is made of.
type memberFormat struct {
	// member compresses what is in one.
	member func(out, in *bytes.Buffer) error
	// end makes what ends a blob, with the table in it, which begins at an offset.
	end func(toc *estargz.JTOC, at int64) (stargzEnd, error)
	// group is how many bytes of small files, at least, share a member; 0: each has its own.
	group int
}

// stargzEnd is what ends a blob.
type stargzEnd struct {
	bytes []byte
	tar   []byte // what of it a decompressed blob has
	toc   digest.Digest
}

func writeMembers(dst io.Writer, r io.Reader, f memberFormat, cores int) (sums, error) {
	blob := digest.Canonical.Digester()
	m := &members{format: f, seq: newSequence(io.MultiWriter(dst, blob.Hash()), cores), offsets: map[int64]*int64{}}
	lib := estargz.NewWriterWithCompressor(io.Discard, m)
	lib.MinChunkSize = f.group
	err := lib.AppendTarLossLess(r)
	var toc digest.Digest
	if err == nil {
		toc, err = lib.Close()
	}
	if err != nil {
		if !m.closed {
			_, _ = m.seq.close()
		}
		return sums{}, fmt.Errorf("write eStargz: %w", err)
	}
	return sums{blob.Digest(), digest.Digest(lib.DiffID()), toc, m.uncompressed}, nil
}

// members is the estargz.Compressor that gives members to a sequence.
type members struct {
	format       memberFormat
	seq          *sequence
	offsets      map[int64]*int64 // where members begin in the blob, by what told was when they began; valid when seq is closed
	told         int64            // what the library has been told of as written
	uncompressed int64
	closed       bool
}

// member is one member, until it is closed.
type member struct {
	*bytes.Buffer
	m       *members
	counter io.Writer // the library's
	begins  int64     // what told was
	told    int       // bytes of it
}

func (m *members) Writer(counter io.Writer) (estargz.WriteFlushCloser, error) {
	return &member{Buffer: newBuffer(), m: m, counter: counter, begins: m.told}, nil
}

// Flush tells how long the member is by now: by that the library decides whether the next file joins it.
func (w *member) Flush() error {
	more := w.Len() - w.told
	w.told = w.Len()
	if w.m.told == 0 {
		// The first member ends here. In one that begins where the blob does, the library takes empty files for a part of it (estargz.go, fileReader.ReadAt).
		more += w.m.format.group
	}
	w.m.told += int64(more)
	_, err := io.CopyN(w.counter, zeros{}, int64(more))
	return err
}

func (w *member) Close() error {
	if err := w.Flush(); err != nil {
		return err
	}
	m, offset := w.m, new(int64)
	m.offsets[w.begins] = offset
	m.uncompressed += int64(w.Len())
	return m.seq.add(w.Buffer, m.format.member, func(at int64) { *offset = at })
}

// WriteTOCAndFooter writes what ends the blob.
func (m *members) WriteTOCAndFooter(_ io.Writer, _ int64, toc *estargz.JTOC, diffHash hash.Hash) (digest.Digest, error) {
	m.closed = true
	at, err := m.seq.close()
	if err != nil {
		return "", err
	}
	for _, e := range toc.Entries {
		if e.Type == "reg" && e.Size > 0 || e.Type == "chunk" {
			e.Offset = *m.offsets[e.Offset]
		}
	}
	end, err := m.format.end(toc, at)
	if err != nil {
		return "", err
	}
	diffHash.Write(end.tar)
	m.uncompressed += int64(len(end.tar))
	_, err = m.seq.dst.Write(end.bytes)
	return end.toc, err
}

// endStargz makes the end of an eStargz blob: the table is a file in a member of its own.
func endStargz(toc *estargz.JTOC, at int64, level int) (end stargzEnd, err error) {
	list, err := json.Marshal(toc)
	if err != nil {
		return end, err
	}
	var file, out bytes.Buffer
	tw := tar.NewWriter(&file)
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: estargz.TOCTarName, Size: int64(len(list))}); err != nil {
		return end, err
	}
	if _, err := tw.Write(list); err != nil {
		return end, err
	}
	if err := tw.Close(); err != nil {
		return end, err
	}
	if err := gzipMember(&out, file.Bytes(), level); err != nil {
		return end, err
	}
	out.Write(footer(at))
	return stargzEnd{out.Bytes(), file.Bytes(), digest.FromBytes(list)}, nil
}

// footer is an empty member with an extra field that says where the table is. See the eStargz specification, "Footer".
func footer(toc int64) []byte {
	field := fmt.Appendf(nil, "%016xSTARGZ", toc)
	extra := append([]byte{'S', 'G'}, binary.LittleEndian.AppendUint16(nil, uint16(len(field)))...)
	var b bytes.Buffer
	// Of the standard library: its empty member is of the length that the specification wants.
	w, err := gzip.NewWriterLevel(&b, gzip.NoCompression)
	if err == nil {
		w.Extra = append(extra, field...)
		err = w.Close()
	}
	if err != nil || b.Len() != estargz.FooterSize {
		panic(fmt.Sprintf("compress: footer of eStargz has %d bytes: %v", b.Len(), err))
	}
	return b.Bytes()
}

// gzippers are compressors for each level. Making one takes longer than compressing a small file.
var gzippers [gzip.BestCompression + 1]sync.Pool

func gzipMember(out *bytes.Buffer, in []byte, level int) error {
	w, _ := gzippers[level].Get().(*kgzip.Writer)
	if w == nil {
		var err error
		if w, err = kgzip.NewWriterLevel(out, level); err != nil {
			return err
		}
	} else {
		w.Reset(out)
	}
	defer gzippers[level].Put(w)
	if _, err := w.Write(in); err != nil {
		return err
	}
	return w.Close()
}

// stargz is eStargz as BuildKit knows it.
type stargz struct {
	compression.Type
	options Options
}

func (t stargz) Compress(_ context.Context, c compression.Config) (compression.Compressor, compression.Finalizer) {
	return compressStargz(t.MediaType(), func(dst io.Writer) *stargzWriter { return newStargz(dst, EStargz.level(c.Level), t.options.cores()) }, nil)
}

// compressStargz makes of a writer what BuildKit wants for one blob. It is given these labels.
func compressStargz(mediaType string, start func(io.Writer) *stargzWriter, extra map[string]string) (compression.Compressor, compression.Finalizer) {
	var w *stargzWriter
	return func(dst io.Writer, of string) (io.WriteCloser, error) {
			if t, err := compression.FromMediaType(of); err != nil {
				return nil, err
			} else if t.MediaType() != mediaType {
				return nil, fmt.Errorf("media type %s is not that of this compression", of)
			}
			w = start(dst)
			return w, nil
		}, func(ctx context.Context, blobs content.Store) (map[string]string, error) {
			if w == nil {
				return nil, errors.New("no eStargz was written")
			}
			if err := w.Close(); err != nil {
				return nil, err
			}
			// Whoever made the blob noted the digest of the tar that went in; the table of contents belongs to what comes out.
			info := content.Info{Digest: w.sums.blob, Labels: map[string]string{labels.LabelUncompressed: w.sums.diffID.String()}}
			maps.Copy(info.Labels, extra)
			var fields []string
			for k := range info.Labels {
				fields = append(fields, "labels."+k)
			}
			if _, err := blobs.Update(ctx, info, fields...); err != nil {
				return nil, err
			}
			return map[string]string{
				estargz.TOCJSONDigestAnnotation:         w.sums.toc.String(),
				estargz.StoreUncompressedSizeAnnotation: fmt.Sprint(w.sums.uncompressed),
				labels.LabelUncompressed:                w.sums.diffID.String(),
			}, nil
		}
}
