package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
)

// A ledger's file is one byte of state, the magic line, the boot's id, the generation, and the entries in the order in
// which they were sent, each of them
//
//	uvarint  root
//	uvarint  bytes shared with the path before
//	uvarint  bytes that follow
//	...      those bytes
//	8 bytes  compared, 8 bytes inode

const magic = "optbuild ledger 1\n"

const (
	stateOpen   = 'o' // a build is sending, or was killed while it did
	stateClosed = 'c'
)

var errUnknown = errors.New("not a ledger, or not one to rely on")

// bootID is part of a ledger since device numbers change with a boot, and since a crash of the machine can leave an older
// ledger beside a younger copy.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}

func markOpen(f *os.File) error {
	_, err := f.WriteAt([]byte{stateOpen}, 0)
	return err
}

func markClosed(f *os.File) error {
	_, err := f.WriteAt([]byte{stateClosed}, 0)
	return err
}

func write(f *os.File, boot, generation string, entries []entry) error {
	b := make([]byte, 0, 64+40*len(entries))
	b = append(b, stateOpen)
	b = append(b, magic...)
	b = appendString(b, boot)
	b = appendString(b, generation)
	last := ""
	for _, e := range entries {
		n := shared(last, e.path)
		b = binary.AppendUvarint(b, uint64(e.root))
		b = binary.AppendUvarint(b, uint64(n))
		b = appendString(b, e.path[n:])
		b = binary.LittleEndian.AppendUint64(b, e.compared)
		b = binary.LittleEndian.AppendUint64(b, e.inode)
		last = e.path
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	return markClosed(f)
}

func read(f *os.File, boot string) (generation string, entries []entry, err error) {
	b, err := io.ReadAll(f)
	if err != nil {
		return "", nil, err
	}
	rest, ok := bytes.CutPrefix(b, []byte(string(rune(stateClosed))+magic))
	if !ok {
		return "", nil, errUnknown
	}
	d := decoder{rest: rest}
	if d.string() != boot {
		return "", nil, errUnknown
	}
	generation = d.string()
	entries = make([]entry, 0, len(b)/40)
	last := ""
	for len(d.rest) > 0 && !d.bad {
		var e entry
		e.root = int(d.uvarint())
		n := d.uvarint()
		if n > uint64(len(last)) {
			return "", nil, errUnknown
		}
		e.path = last[:n] + d.string()
		e.compared, e.inode = d.uint64(), d.uint64()
		last = e.path
		entries = append(entries, e)
	}
	if d.bad || generation == "" {
		return "", nil, errUnknown
	}
	return generation, entries, nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func shared(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// decoder reads values until one is bad.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.rest)) {
		d.bad, d.rest = true, nil
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) string() string { return string(d.take(d.uvarint())) }

func (d *decoder) uint64() uint64 {
	if b := d.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}
