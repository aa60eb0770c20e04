package compress

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
)

// A piece ends where its content says so, between these sizes in bytes, so that a file more or less changes the pieces that it lies in and no others. They are part of what the blob's bytes
// depend on, as all of cutting is.
const (
	minPiece = 512 << 10
	maxPiece = 2 << 20
)

// window is how far back deflate looks, in bytes: a piece is compressed with the end of the one before it as dictionary, so that cutting costs nothing but a marker.
const window = 32 << 10

// gzipHeader is that of the standard library: no name, no time, no system.
var gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}

// gzipWriter makes one member of gzip from pieces: every piece but the last ends with a marker at a byte boundary, so that they can be put together.
type gzipWriter struct {
	seq    *sequence
	level  int
	memo   *Memo
	fill   bool          // remember what is compressed
	block  *bytes.Buffer // not given to seq yet
	before []byte        // end of the block before it
	crc    uint32
	size   uint32 // modulo 2^32
	closed bool
	err    error // of Close
}

func newGzip(dst io.Writer, level int, o Options) (*gzipWriter, error) {
	if _, err := dst.Write(gzipHeader); err != nil {
		return nil, err
	}
	return &gzipWriter{seq: newSequence(dst, o.cores()), level: level, memo: o.Memo, fill: o.Rehearse, block: newBuffer()}, nil
}

func (w *gzipWriter) Write(p []byte) (n int, err error) {
	w.crc = crc32.Update(w.crc, crc32.IEEETable, p)
	w.size += uint32(len(p))
	for n < len(p) {
		length := w.block.Len()
		if length == maxPiece || length >= minPiece && length%tarBlock == 0 && endsPiece(w.block.Bytes()[length-tarBlock:]) {
			if err := w.cut(false); err != nil {
				return n, err
			}
			length = 0
		}
		room := tarBlock - length%tarBlock
		if length < minPiece {
			room = minPiece - length
		}
		part := p[n:min(len(p), n+room)]
		w.block.Write(part)
		n += len(part)
	}
	return n, nil
}

// tarBlock is what headers and files in a tar begin at multiples of, in bytes.
const tarBlock = 512

// endsPiece decides whether a piece may end behind this block, by what tells headers apart (name, size, times, sum) and a little more. It is true for one block in a thousand, so that
// pieces have 1 MiB on average.
func endsPiece(block []byte) bool {
	var h uint64
	for _, at := range [...]int{0, 8, 16, 120, 128, 136, 144, 148, 256, 384, 504} {
		h = (h ^ binary.LittleEndian.Uint64(block[at:])) * 0x9e3779b97f4a7c15
		h ^= h >> 32
	}
	return h&1023 == 1023
}

// cut gives the block to the sequence.
func (w *gzipWriter) cut(last bool) error {
	block, before := w.block, w.before
	w.before = bytes.Clone(block.Bytes()[max(0, block.Len()-window):])
	w.block = newBuffer()
	return w.seq.add(block, func(out, in *bytes.Buffer) error {
		return w.memo.deflate(out, in.Bytes(), before, w.level, last, w.fill)
	}, nil)
}

func (w *gzipWriter) Close() error {
	if w.closed {
		return w.err
	}
	w.closed = true
	w.err = w.cut(true)
	if _, err := w.seq.close(); w.err == nil {
		w.err = err
	}
	if w.err == nil {
		_, w.err = w.seq.dst.Write(binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, w.crc), w.size))
	}
	return w.err
}

// deflaters are compressors for each level.
var deflaters [flate.BestCompression + 1]sync.Pool

// deflate appends in to out, to which an inflater has before as its window.
func deflate(out *bytes.Buffer, in, before []byte, level int, last bool) error {
	fw, _ := deflaters[level].Get().(*flate.Writer)
	if fw == nil {
		var err error
		if fw, err = flate.NewWriterDict(out, level, before); err != nil {
			return err
		}
	} else {
		fw.ResetDict(out, before)
	}
	defer deflaters[level].Put(fw)
	if _, err := fw.Write(in); err != nil {
		return err
	}
	if last {
		return fw.Close()
	}
	return fw.Flush()
}
