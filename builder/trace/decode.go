package trace

import (
	"crypto/hmac"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// decompressor is made once. DecodeAll may be called concurrently, and returns no more than maxBody bytes.
var decompressor = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxBody), zstd.WithDecodeAllCapLimit(true))
})

// Decode returns the trace whose bytes are b, if it was sealed with the key. Any other input is one of the errors above, and
// takes no more time and memory than the bounds in valid.go allow.
func Decode(b, key []byte) (*Trace, error) {
	t, err := decode(b, key)
	if err != nil {
		return nil, fmt.Errorf("decode trace: %w", err)
	}
	return t, nil
}

func decode(b, key []byte) (*Trace, error) {
	if len(b) < len(magic)+1 || string(b[:len(magic)]) != magic {
		return nil, ErrFormat
	}
	if b[len(magic)] != version {
		return nil, fmt.Errorf("%w: %d", ErrVersion, b[len(magic)])
	}
	if len(b) < headerSize+sealSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrFormat, len(b))
	}
	sealed, mac := b[:len(b)-sealSize], b[len(b)-sealSize:]
	if !hmac.Equal(mac, seal(key, sealed)) {
		return nil, ErrSeal
	}
	header := decoder{rest: sealed[len(magic)+1 : headerSize]}
	t := &Trace{Weak: [32]byte(header.take(32)), Layer: hex.EncodeToString(header.take(16))}
	t.Started, t.Ended = header.time(), header.time()
	size := binary.LittleEndian.Uint32(header.take(4))
	if size > maxBody {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, size)
	}
	z, err := decompressor()
	if err != nil {
		return nil, err
	}
	body, err := z.DecodeAll(sealed[headerSize:], make([]byte, 0, size))
	if err != nil {
		return nil, fmt.Errorf("%w: decompress: %w", ErrInvalid, err)
	}
	if len(body) != int(size) {
		return nil, fmt.Errorf("%w: %d bytes where there should be %d", ErrInvalid, len(body), size)
	}
	d := decoder{rest: body, memory: maxMemory + 2*maxBody} // with the tables and the notes, which valid does not count
	d.body(t)
	if d.err == nil && len(d.rest) > 0 {
		d.fail("%d bytes left over", len(d.rest))
	}
	if d.err == nil {
		d.err = t.valid()
	}
	if d.err != nil {
		return nil, d.err
	}
	return t, nil
}

// decoder reads values until one is bad; from then on all are zero.
type decoder struct {
	rest   []byte
	memory int // how many bytes may yet be allocated
	err    error

	path []byte // the last one, for making the next

	owners  places[owner]
	digests places[[32]byte]
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
	}
	d.rest = nil
}

// spend says whether so many bytes may be allocated.
func (d *decoder) spend(bytes int) bool {
	if d.memory -= bytes; d.memory < 0 && d.err == nil {
		d.err, d.rest = ErrTooLarge, nil
	}
	return d.err == nil
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.fail("a number is cut short")
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.fail("a number is cut short")
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// below reads a number that must be less than a limit.
func (d *decoder) below(limit uint64) uint64 {
	v := d.uvarint()
	if v >= limit {
		d.fail("%d where less than %d is allowed", v, limit)
		return 0
	}
	return v
}

// count reads how many things follow, each of them of at least some bytes.
func (d *decoder) count(least int) int {
	return int(d.below(uint64(len(d.rest)/least) + 1))
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.rest)) {
		d.fail("%d bytes where there are %d", n, len(d.rest))
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) string() string {
	b := d.take(d.uvarint())
	if !d.spend(len(b)) {
		return ""
	}
	return string(b)
}

// shared reads a string that begins as the last one does.
func (d *decoder) shared(last string) string {
	n := d.below(uint64(len(last)) + 1)
	if !d.spend(int(n)) {
		return ""
	}
	b := d.take(d.uvarint())
	if !d.spend(len(b)) {
		return ""
	}
	d.path = append(append(d.path[:0], last[:n]...), b...)
	return string(d.path)
}

func (d *decoder) time() time.Time {
	seconds := int64(binary.LittleEndian.Uint64(d.take(8))) // the header is known to be long enough
	return time.Unix(seconds, int64(binary.LittleEndian.Uint32(d.take(4)))).UTC()
}

// body reads what Trace.body writes.
func (d *decoder) body(t *Trace) {
	if n := d.count(2); n > 0 && d.spend(64*n) {
		t.Notes = make(map[string]string, n)
		last := ""
		for i := range n {
			name := d.string()
			if i > 0 && name <= last {
				d.fail("notes that are not sorted")
			}
			if d.err != nil {
				return
			}
			t.Notes[name], last = d.string(), name
		}
	}
	if n := d.count(1); n > 0 && d.spend(32*n) {
		t.Layers = make([]Layer, n)
	}
	for i := range t.Layers {
		if n := d.count(3); n > 0 && d.spend(entrySize*n) {
			t.Layers[i].Entries = make([]Entry, n)
		}
	}
	if n := d.count(4); n > 0 && d.spend(24*n) {
		d.owners.values = make([]owner, n)
	}
	for i := range d.owners.values {
		mode, uid, gid := d.below(1<<32), d.below(1<<32), d.below(1<<32)
		d.owners.values[i] = owner{uint32(mode), uint32(uid), uint32(gid), d.uvarint()}
	}
	if n := d.count(32); n > 0 && d.spend(32*n) {
		d.digests.values = make([][32]byte, n)
	}
	for i := range d.digests.values {
		copy(d.digests.values[i][:], d.take(32))
	}
	for i := range t.Layers {
		d.layer(t.Layers[i].Entries)
	}
	if !d.owners.used() || !d.digests.used() {
		d.fail("values that no entry has")
	}
}

// layer reads what appendLayer writes.
func (d *decoder) layer(entries []Entry) {
	last := ""
	for i := range entries {
		if last = d.shared(last); len(last) > maxPath {
			d.fail("a path of %d bytes", len(last))
			return
		}
		entries[i].Path = last
	}
	for i := range entries {
		entries[i].What = What(d.byte())
	}
	order := int64(0)
	for i := range entries {
		if order += d.varint(); order != int64(uint32(order)) {
			d.fail("an order of %d", order)
			return
		}
		entries[i].Order = uint32(order)
	}
	for e := range having(entries, func(e *Entry) bool { return e.What&Absent == 0 }) {
		o := d.owners.value(d, d.uvarint())
		e.Mode, e.UID, e.GID, e.Rdev = o.mode, o.uid, o.gid, o.rdev
	}
	file := func(e *Entry) bool { return e.kind() == unix.S_IFREG }
	for e := range having(entries, file) {
		e.Size = int64(d.uvarint())
	}
	modified := int64(0)
	for e := range having(entries, file) {
		modified += d.varint()
		e.Modified = modified
	}
	for e := range having(entries, func(e *Entry) bool { return e.What&Absent == 0 && e.kind() != unix.S_IFREG }) {
		e.Modified = d.varint()
	}
	for e := range having(entries, (*Entry).hasContent) {
		e.Content = d.digests.value(d, d.uvarint())
	}
	for e := range having(entries, func(e *Entry) bool { return e.What&Absent == 0 }) {
		if n := d.uvarint(); n > 0 {
			e.Xattrs = d.digests.value(d, n-1)
		}
	}
	for e := range having(entries, func(e *Entry) bool { return e.What&Absent == 0 && e.What&Listed != 0 }) {
		d.listing(e)
	}
}

func (d *decoder) listing(e *Entry) {
	n := d.count(4)
	if n == 0 || !d.spend(nameSize*n) {
		return
	}
	e.Listing = make([]Name, n)
	last := ""
	for i := range e.Listing {
		if last = d.shared(last); len(last) > maxPath {
			d.fail("a name of %d bytes", len(last))
			return
		}
		e.Listing[i] = Name{last, d.byte()}
	}
}

// having goes over the entries that are of one sort.
func having(entries []Entry, sort func(*Entry) bool) iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		for i := range entries {
			if sort(&entries[i]) && !yield(&entries[i]) {
				return
			}
		}
	}
}

// places undoes a table.
type places[T any] struct {
	values []T
	met    int // how many of them
}

func (p *places[T]) used() bool { return p.met == len(p.values) }

// value returns what table.number gave a number to.
func (p *places[T]) value(d *decoder, number uint64) (v T) {
	switch {
	case d.err != nil:
	case number == 0 && p.met < len(p.values):
		p.met++
		return p.values[p.met-1]
	case number > 0 && number <= uint64(p.met):
		return p.values[number-1]
	default:
		d.fail("value %d of %d", number, p.met)
	}
	return v
}
