package mounts

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Manifest says what a directory contained. FORMAT.md describes how it is written.
type Manifest struct {
	Packs   []Pack
	Entries []Entry // the directory itself first, each directory before what is in it
}

// Pack is a blob with the contents of files.
type Pack struct {
	Digest digest.Digest
	Size   int64   // of the blob
	Chunks []Chunk // in the order in which they are in the pack, with those that no file has any more
}

// Chunk is what a file contains, or a part of it.
type Chunk struct {
	Sum   Sum   `json:"sum"`
	Bytes int64 `json:"bytes"`
}

// Descriptor names the pack's blob.
func (p Pack) Descriptor() ocispecs.Descriptor {
	return ocispecs.Descriptor{MediaType: MediaTypePack, Digest: p.Digest, Size: p.Size}
}

// bytes is what is in the pack.
func (p Pack) bytes() (n int64) {
	for _, c := range p.Chunks {
		n += c.Bytes
	}
	return n
}

// Type is what an entry is.
type Type string

// All types that there are.
const (
	Directory Type = "dir"
	File      Type = "file"
	Symlink   Type = "symlink"
	HardLink  Type = "link" // another name of a file before it
)

// Entry is one name in the directory.
type Entry struct {
	Path   name              `json:"path"` // relative; "." is the directory itself
	Type   Type              `json:"type"`
	Mode   uint32            `json:"mode,omitempty"` // permissions; for directories also sticky and setgid
	UID    uint32            `json:"uid,omitempty"`
	GID    uint32            `json:"gid,omitempty"`
	MTime  int64             `json:"mtime,omitempty"` // ns since 1970
	Target name              `json:"target,omitempty"`
	Chunks []int             `json:"chunks,omitempty"` // indexes into the chunks of all packs, one after the other
	Xattrs map[string][]byte `json:"xattrs,omitempty"`
}

// Descriptors names the blobs of all packs.
func (m *Manifest) Descriptors() []ocispecs.Descriptor {
	ds := make([]ocispecs.Descriptor, len(m.Packs))
	for i, p := range m.Packs {
		ds[i] = p.Descriptor()
	}
	return ds
}

// chunks are those of all packs, as entries count them.
func (m *Manifest) chunks() []Chunk {
	var all []Chunk
	for _, p := range m.Packs {
		all = append(all, p.Chunks...)
	}
	return all
}

// Size returns what is in the directory: bytes of files, and entries.
func (m *Manifest) Size() (n int64, entries int) {
	all := m.chunks()
	for _, e := range m.Entries {
		for _, c := range e.Chunks {
			n += all[c].Bytes
		}
	}
	return n, len(m.Entries)
}

// Newest is when any file was modified last, according to the archive.
func (m *Manifest) Newest() time.Time {
	newest := int64(math.MinInt64)
	for _, e := range m.Entries {
		if e.Type == File {
			newest = max(newest, e.MTime)
		}
	}
	if newest == math.MinInt64 {
		return time.Time{}
	}
	return time.Unix(0, newest)
}

const (
	version = 1
	// MaxManifest is how large the blob of a manifest may be. The default limits allow less.
	MaxManifest      = 64 << 20
	maxManifestPlain = 512 << 20
	maxLine          = 1 << 20
	maxXattrs        = 64 << 10 // bytes of one entry's
	window           = 8 << 20  // of zstd: what reading takes in memory
)

type headerLine struct {
	Version int `json:"version"`
	Packs   int `json:"packs"`
	Chunks  int `json:"chunks"`
	Entries int `json:"entries"`
}

type packLine struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
	Chunks int           `json:"chunks"`
}

// Encode returns the blob of a manifest. Equal manifests give equal bytes.
func (m *Manifest) Encode() (ocispecs.Descriptor, []byte, error) {
	var b bytes.Buffer
	z, err := newEncoder(&b)
	if err != nil {
		return ocispecs.Descriptor{}, nil, err
	}
	w := bufio.NewWriterSize(z, 1<<16)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	all := m.chunks()
	err = enc.Encode(headerLine{version, len(m.Packs), len(all), len(m.Entries)})
	for _, p := range m.Packs {
		err = errors.Join(err, enc.Encode(packLine{p.Digest, p.Size, len(p.Chunks)}))
	}
	for _, c := range all {
		err = errors.Join(err, enc.Encode(c))
	}
	for _, e := range m.Entries {
		err = errors.Join(err, enc.Encode(e))
	}
	if err = errors.Join(err, w.Flush(), z.Close()); err != nil {
		return ocispecs.Descriptor{}, nil, fmt.Errorf("write manifest: %w", err)
	}
	return describe(MediaTypeManifest, b.Bytes()), b.Bytes(), nil
}

// Decode reads the blob of a manifest, which the caller has verified to be the one that was asked for, and checks that it is one that Restore may follow. All its
// errors wrap [ErrDamaged].
func Decode(b []byte, l Limits) (*Manifest, error) {
	m, err := decode(b, l.withDefaults())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return m, nil
}

func decode(b []byte, l Limits) (*Manifest, error) {
	if len(b) > MaxManifest {
		return nil, fmt.Errorf("a manifest of %d bytes", len(b))
	}
	z, err := newDecoder(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	r := bufio.NewReaderSize(io.LimitReader(z, maxManifestPlain), maxLine)
	var h headerLine
	if err := readLine(r, &h); err != nil {
		return nil, fmt.Errorf("first line: %w", err)
	}
	switch {
	case h.Version != version:
		return nil, fmt.Errorf("its version is %d, not %d", h.Version, version)
	case h.Entries < 1 || h.Entries > l.Files:
		return nil, fmt.Errorf("it has %d entries; allowed are %d", h.Entries, l.Files)
	case h.Packs < 0 || h.Packs > maxPacks(l) || h.Chunks < h.Packs || h.Chunks > maxChunks(l):
		return nil, fmt.Errorf("it has %d packs and %d chunks", h.Packs, h.Chunks)
	}
	m := &Manifest{}
	if err := readPacks(r, m, h); err != nil {
		return nil, err
	}
	c := checker{limits: l, chunks: m.chunks(), types: map[string]Type{}}
	for i := range h.Entries {
		var e Entry
		err := readLine(r, &e)
		if err == nil {
			err = c.entry(e)
		}
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
		m.Entries = append(m.Entries, e)
	}
	if _, err := r.ReadByte(); err != io.EOF {
		return nil, errors.New("it does not end where it should")
	}
	return m, nil
}

func readPacks(r *bufio.Reader, m *Manifest, h headerLine) error {
	counts := make([]int, h.Packs)
	sum := 0
	for i := range h.Packs {
		var p packLine
		if err := readLine(r, &p); err != nil {
			return fmt.Errorf("pack %d: %w", i, err)
		}
		if p.Digest.Validate() != nil || p.Digest.Algorithm() != digest.SHA256 {
			return fmt.Errorf("pack %d: a digest that is none: %.100q", i, p.Digest)
		}
		if p.Size < 1 || p.Size > PackBytes+PackBytes/8 || p.Chunks < 1 || p.Chunks > packChunks {
			return fmt.Errorf("pack %d: %d bytes, %d chunks", i, p.Size, p.Chunks)
		}
		m.Packs = append(m.Packs, Pack{Digest: p.Digest, Size: p.Size})
		counts[i] = p.Chunks
		sum += p.Chunks
	}
	if sum != h.Chunks {
		return fmt.Errorf("its packs have %d chunks, not %d", sum, h.Chunks)
	}
	for i, n := range counts {
		p := &m.Packs[i]
		total := int64(0)
		for range n {
			var c Chunk
			if err := readLine(r, &c); err != nil {
				return fmt.Errorf("chunk of pack %d: %w", i, err)
			}
			if c.Bytes < 1 || c.Bytes > ChunkBytes {
				return fmt.Errorf("chunk of pack %d: %d bytes", i, c.Bytes)
			}
			if total += c.Bytes; total > PackBytes+ChunkBytes {
				return fmt.Errorf("pack %d has more than %d bytes", i, total)
			}
			p.Chunks = append(p.Chunks, c)
		}
	}
	return nil
}

// How many there can be at most, with what is carried along for nobody (see keepPacks).
func maxPacks(l Limits) int { return int(8*l.Bytes/PackBytes) + 2*l.Files/packChunks + 4*maxSmall }

func maxChunks(l Limits) int {
	return maxDeadChunks*(l.Files+int(l.Bytes/ChunkBytes)) + fewChunks*maxPacks(l)
}

func readLine(r *bufio.Reader, v any) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		if errors.Is(err, bufio.ErrBufferFull) {
			return fmt.Errorf("a line of more than %d bytes", maxLine)
		}
		return fmt.Errorf("read line: %w", err)
	}
	return json.Unmarshal(line, v)
}

func newEncoder(w io.Writer) (*zstd.Encoder, error) {
	return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window), zstd.WithEncoderLevel(zstd.SpeedDefault))
}

func newDecoder(r io.Reader) (*zstd.Decoder, error) {
	return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(window), zstd.WithDecoderMaxMemory(maxManifestPlain))
}
