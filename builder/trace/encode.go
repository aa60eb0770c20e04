package trace

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// FORMAT.md has the format byte by byte. This file writes it, decode.go reads it, valid.go says what a trace must be like.

const (
	magic   = "optbuild trace\n"
	version = 2

	headerSize = len(magic) + 1 + 32 + 16 + 12 + 12 + 4 // magic, version, weak key, layer, started, ended, size of the body
	sealSize   = sha256.Size

	maxBody = 64 << 20 // bytes of a body before compression
)

// encoder is made once: it has tables of megabytes. EncodeAll may be called concurrently.
var encoder = sync.OnceValues(func() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
})

// Encode returns the bytes of a trace, sealed with a key. It refuses a trace that Decode would not return as it is.
func (t *Trace) Encode(key []byte) ([]byte, error) {
	if err := t.valid(); err != nil {
		return nil, fmt.Errorf("encode trace: %w", err)
	}
	body := t.body()
	if len(body) > maxBody {
		return nil, fmt.Errorf("encode trace: %w: %d bytes", ErrTooLarge, len(body))
	}
	z, err := encoder()
	if err != nil {
		return nil, fmt.Errorf("encode trace: %w", err)
	}
	layer, err := hex.DecodeString(t.Layer)
	if err != nil {
		return nil, fmt.Errorf("encode trace: %w", err)
	}
	b := make([]byte, 0, headerSize+len(body)/2+sealSize)
	b = append(b, magic...)
	b = append(b, version)
	b = append(b, t.Weak[:]...)
	b = append(b, layer...)
	b = appendTime(b, t.Started)
	b = appendTime(b, t.Ended)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
	b = z.EncodeAll(body, b)
	return append(b, seal(key, b)...), nil
}

// seal is what only who has the key can add to a trace.
func seal(key, b []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(b)
	return h.Sum(nil)
}

func appendTime(b []byte, t time.Time) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(t.Unix()))
	return binary.LittleEndian.AppendUint32(b, uint32(t.Nanosecond()))
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// body is what is compressed. Values of one kind stand together, since they are alike.
func (t *Trace) body() []byte {
	var b []byte
	b = binary.AppendUvarint(b, uint64(len(t.Notes)))
	for _, name := range slices.Sorted(maps.Keys(t.Notes)) {
		b = appendString(appendString(b, name), t.Notes[name])
	}
	b = binary.AppendUvarint(b, uint64(len(t.Layers)))
	for _, l := range t.Layers {
		b = binary.AppendUvarint(b, uint64(len(l.Entries)))
	}
	digests := table[[32]byte]{} // shared by all layers
	owners := table[owner]{}
	var layers []byte
	for _, l := range t.Layers {
		layers = appendLayer(layers, l, digests, owners)
	}
	b = binary.AppendUvarint(b, uint64(len(owners)))
	for _, o := range owners.inOrder() {
		for _, v := range []uint64{uint64(o.mode), uint64(o.uid), uint64(o.gid), o.rdev} {
			b = binary.AppendUvarint(b, v)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(digests)))
	for _, d := range digests.inOrder() {
		b = append(b, d[:]...)
	}
	return append(b, layers...)
}

// owner is what many entries have in common.
type owner struct {
	mode, uid, gid uint32
	rdev           uint64
}

func appendLayer(b []byte, l Layer, digests table[[32]byte], owners table[owner]) []byte {
	last := ""
	for _, e := range l.Entries {
		b = appendShared(b, last, e.Path)
		last = e.Path
	}
	for _, e := range l.Entries {
		b = append(b, byte(e.What))
	}
	order := int64(0)
	for _, e := range l.Entries {
		b = binary.AppendVarint(b, int64(e.Order)-order)
		order = int64(e.Order)
	}
	there := slices.DeleteFunc(slices.Clone(l.Entries), func(e Entry) bool { return e.What&Absent != 0 })
	for _, e := range there {
		b = binary.AppendUvarint(b, owners.number(owner{e.Mode, e.UID, e.GID, e.Rdev}))
	}
	files := slices.DeleteFunc(slices.Clone(there), func(e Entry) bool { return e.kind() != unix.S_IFREG })
	for _, e := range files {
		b = binary.AppendUvarint(b, uint64(e.Size))
	}
	modified := int64(0)
	for _, e := range files {
		b = binary.AppendVarint(b, e.Modified-modified)
		modified = e.Modified
	}
	for _, e := range there {
		if e.kind() != unix.S_IFREG {
			b = binary.AppendVarint(b, e.Modified)
		}
	}
	for _, e := range there {
		if e.hasContent() {
			b = binary.AppendUvarint(b, digests.number(e.Content))
		}
	}
	for _, e := range there {
		if e.Xattrs == ([32]byte{}) {
			b = append(b, 0)
		} else {
			b = binary.AppendUvarint(b, digests.number(e.Xattrs)+1)
		}
	}
	for _, e := range there {
		if e.What&Listed == 0 {
			continue
		}
		b = binary.AppendUvarint(b, uint64(len(e.Listing)))
		last := ""
		for _, n := range e.Listing {
			b = appendShared(b, last, n.Name)
			b = append(b, n.Type)
			last = n.Name
		}
	}
	return b
}

// hasContent says whether an entry has a digest of what is in it.
func (e *Entry) hasContent() bool { return e.kind() == unix.S_IFREG || e.kind() == unix.S_IFLNK }

// appendShared adds a string as the number of bytes that it begins with alike as the one before, and the rest.
func appendShared(b []byte, last, s string) []byte {
	n := shared(last, s)
	return appendString(binary.AppendUvarint(b, uint64(n)), s[n:])
}

// table numbers values in the order in which they are first met.
type table[T comparable] map[T]uint64

// number returns 0 for a value that was not met before (it gets the next place), or 1 and its place.
func (t table[T]) number(v T) uint64 {
	if place, ok := t[v]; ok {
		return place + 1
	}
	t[v] = uint64(len(t))
	return 0
}

func (t table[T]) inOrder() []T {
	all := make([]T, len(t))
	for v, place := range t {
		all[place] = v
	}
	return all
}

// The errors that Decode returns, for errors.Is.
var (
	ErrFormat   = errors.New("not a trace")
	ErrVersion  = errors.New("a trace of another version")
	ErrSeal     = errors.New("the trace was damaged, or sealed with another key")
	ErrInvalid  = errors.New("the trace contradicts itself")
	ErrTooLarge = errors.New("the trace is too large")
)
