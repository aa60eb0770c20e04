package remote

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// version is that of the format; FORMAT.md describes it.
const version = 1

// Bounds of an index. A line is bounded, too, so that what a hostile one can make of its bytes in memory is.
const (
	maxPacked  = 16 << 20 // bytes as it is stored
	maxPlain   = 64 << 20 // bytes when it is unpacked
	maxEntries = 20_000
	maxBlobs   = 50_000
	maxRefs    = 250_000 // holds of all entries together
	maxWindow  = 8 << 20 // of the decompressor
	// encoderWindow is the compressor's.
	encoderWindow = 1 << 20
)

// head is the first line of an index.
type head struct {
	Version int    `json:"version"`
	Scope   string `json:"scope"`
	Blobs   int    `json:"blobs"`
	Entries int    `json:"entries"`
}

// blobLine is a blob. Entries refer to it by its number, so that a layer that many of them hold is there once.
type blobLine struct {
	MediaType   string            `json:"mediaType"`
	Digest      digest.Digest     `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type entryLine struct {
	Kind    string            `json:"kind"`
	Key     string            `json:"key"`
	Created int64             `json:"created"` // seconds since 1970
	Blob    int               `json:"blob"`
	Holds   []int             `json:"holds,omitempty"`
	Note    map[string]string `json:"note,omitempty"`
}

var errTooLarge = errors.New("it is too large")

// encode returns the bytes of an index: the same entries have the same bytes, for one version of the compressor. Entries are as union returns them.
func encode(scope string, entries []identified) ([]byte, error) {
	table, numbers := blobTable(entries)
	if len(entries) > maxEntries || len(table) > maxBlobs {
		return nil, fmt.Errorf("encode index: %w (%d entries, %d blobs)", errTooLarge, len(entries), len(table))
	}
	var plain bytes.Buffer
	line := func(v any) error {
		at := plain.Len()
		e := json.NewEncoder(&plain)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			return fmt.Errorf("encode index: %w", err)
		}
		if plain.Len()-at > maxLine {
			return fmt.Errorf("encode index: %w (a line of %d bytes)", errTooLarge, plain.Len()-at)
		}
		return nil
	}
	if err := line(head{version, scope, len(table), len(entries)}); err != nil {
		return nil, err
	}
	for _, d := range table {
		if err := line(blobLine{d.MediaType, d.Digest, d.Size, d.Annotations}); err != nil {
			return nil, err
		}
	}
	refs := 0
	for _, e := range entries {
		l := entryLine{Kind: e.Kind, Key: e.Key, Created: e.Created.Unix(), Blob: numbers[fingerprint(e.Blob)], Note: e.Note}
		for _, d := range e.Holds {
			l.Holds = append(l.Holds, numbers[fingerprint(d)])
		}
		refs += len(l.Holds)
		if err := line(l); err != nil {
			return nil, err
		}
	}
	if refs > maxRefs || plain.Len() > maxPlain {
		return nil, fmt.Errorf("encode index: %w (%d holds, %d bytes)", errTooLarge, refs, plain.Len())
	}
	w, err := compressor()
	if err != nil {
		return nil, fmt.Errorf("encode index: %w", err)
	}
	packed := w.EncodeAll(plain.Bytes(), nil)
	if len(packed) > maxPacked {
		return nil, fmt.Errorf("encode index: %w (%d bytes)", errTooLarge, len(packed))
	}
	return packed, nil
}

// compressor is one for all indexes: making it takes longer than using it.
var compressor = sync.OnceValues(func() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(encoderWindow))
})

// blobTable returns the distinct descriptors of entries, sorted, and the number of each.
func blobTable(entries []identified) ([]ocispecs.Descriptor, map[string]int) {
	distinct := map[string]ocispecs.Descriptor{}
	for _, e := range entries {
		distinct[fingerprint(e.Blob)] = e.Blob
		for _, d := range e.Holds {
			distinct[fingerprint(d)] = d
		}
	}
	numbers := make(map[string]int, len(distinct))
	table := make([]ocispecs.Descriptor, 0, len(distinct))
	for _, k := range slices.Sorted(maps.Keys(distinct)) {
		numbers[k] = len(table)
		table = append(table, distinct[k])
	}
	return table, numbers
}

// fingerprint tells descriptors apart that differ in anything.
func fingerprint(d ocispecs.Descriptor) string {
	s := fmt.Sprintf("%s %s %d", d.Digest, d.MediaType, d.Size)
	if len(d.Annotations) > 0 {
		s += jsonText(d.Annotations)
	}
	return s
}

// errVersion is wrapped when an index is of a version that this program does not know.
var errVersion = errors.New("it is of another version of the format")

// decode reads what encode has written. It is for bytes from anywhere: what is wrong with them is an error, and memory is bounded by the constants above.
func decode(scope string, packed []byte) ([]identified, error) {
	if len(packed) > maxPacked {
		return nil, errTooLarge
	}
	z, err := zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	plain := &io.LimitedReader{R: z, N: maxPlain + 1}
	lines := bufio.NewScanner(plain)
	lines.Buffer(make([]byte, 0, 16<<10), maxLine)
	next := func(v any) error {
		if !lines.Scan() {
			if lines.Err() != nil {
				return lines.Err()
			}
			return errors.New("it ends early")
		}
		return json.Unmarshal(lines.Bytes(), v)
	}
	var h head
	if err := next(&h); err != nil {
		return nil, err
	}
	switch {
	case h.Version != version:
		return nil, fmt.Errorf("%w (%d)", errVersion, h.Version)
	case h.Scope != scope:
		return nil, fmt.Errorf("it is that of the scope %q", clip(h.Scope))
	case h.Entries < 0 || h.Entries > maxEntries || h.Blobs < 0 || h.Blobs > maxBlobs:
		return nil, fmt.Errorf("%w (%d entries, %d blobs)", errTooLarge, h.Entries, h.Blobs)
	}
	var table []ocispecs.Descriptor
	sizes := map[digest.Digest]int64{}
	for range h.Blobs {
		var l blobLine
		if err := next(&l); err != nil {
			return nil, err
		}
		d := ocispecs.Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size, Annotations: l.Annotations}
		if err := checkBlob(d); err != nil {
			return nil, err
		}
		if size, ok := sizes[d.Digest]; ok && size != d.Size {
			return nil, fmt.Errorf("%s has two sizes", d.Digest)
		}
		sizes[d.Digest] = d.Size
		table = append(table, d)
	}
	var entries []Entry
	refs := 0
	for range h.Entries {
		var l entryLine
		if err := next(&l); err != nil {
			return nil, err
		}
		if refs += len(l.Holds); refs > maxRefs {
			return nil, fmt.Errorf("%w (%d holds)", errTooLarge, refs)
		}
		e, err := l.entry(table)
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	if lines.Scan() || plain.N == 0 {
		return nil, errors.New("there is something behind its end")
	}
	if lines.Err() != nil {
		return nil, lines.Err()
	}
	return union(identify(entries)), nil
}

// entry looks the numbers up.
func (l entryLine) entry(table []ocispecs.Descriptor) (Entry, error) {
	e := Entry{Kind: l.Kind, Key: l.Key, Created: time.Unix(l.Created, 0).UTC(), Note: l.Note}
	if len(l.Holds) > maxHolds {
		return e, fmt.Errorf("an entry holds %d blobs: too many", len(l.Holds))
	}
	for i, n := range append([]int{l.Blob}, l.Holds...) {
		if n < 0 || n >= len(table) {
			return e, fmt.Errorf("it has no blob %d", n)
		}
		if i == 0 {
			e.Blob = table[n]
		} else {
			e.Holds = append(e.Holds, table[n])
		}
	}
	return e, e.check()
}
