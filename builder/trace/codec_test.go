package trace

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var testKey = []byte("a key of thirty-two bytes or so.")

// invent makes a trace that nothing observed.
func invent(r *rand.Rand, layers, entries int) *Trace {
	t := &Trace{
		Layer: fmt.Sprintf("%016x%016x", r.Uint64(), r.Uint64()), Started: started.Add(time.Duration(r.Int64N(1e15))),
		Ended: started.Add(time.Duration(r.Int64N(1e15))), Notes: map[string]string{"step": "RUN make", "empty": "", "odd": "\xff\x00"},
	}
	for i := range t.Weak {
		t.Weak[i] = byte(r.Uint32())
	}
	digest := func() (d [32]byte) {
		if r.IntN(4) == 0 { // one that other entries have as well
			return sha256.Sum256([]byte{byte(r.IntN(10))})
		}
		for i := range d {
			d[i] = byte(r.Uint32())
		}
		return d
	}
	for range layers {
		byPath := map[string]Entry{}
		for i := range entries {
			path := fmt.Sprintf("node_modules/module-%d/lib/%x/index-%d.js", i/40, r.IntN(16), i%40)
			e := Entry{Path: path, What: Absent, Order: uint32(i * 3)}
			if r.IntN(5) > 1 {
				e.What = Looked | What(r.IntN(2))*Read
				e.Mode, e.UID, e.GID = 0o644|uint32(r.IntN(2)*0o111), uint32(r.IntN(2))*1000, uint32(r.IntN(2))*1000
				switch r.IntN(12) {
				case 0:
					e.What |= Listed
					e.Mode |= unix.S_IFDIR
					e.Modified = r.Int64N(2) * (longAgo.UnixNano() + r.Int64N(60e9))
					for j := range r.IntN(20) {
						e.Listing = append(e.Listing, Name{fmt.Sprintf("file-%02d", j), uint8(r.IntN(15))})
					}
				case 1:
					e.Mode |= unix.S_IFLNK
					e.Content = digest()
				case 2:
					e.Mode |= unix.S_IFCHR
					e.Rdev = uint64(r.Uint32())
				default:
					e.Mode |= unix.S_IFREG
					e.Size = r.Int64N(50_000)
					e.Modified = longAgo.UnixNano() + r.Int64N(60e9)
					e.Content = digest()
				}
				if r.IntN(50) == 0 {
					e.Xattrs = digest()
				}
			}
			byPath[path] = e
		}
		t.Layers = append(t.Layers, Layer{slices.SortedFunc(maps.Values(byPath), func(a, b Entry) int { return ComparePaths(a.Path, b.Path) })})
	}
	return t
}

func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 50 {
		roundTrip(t, invent(r, i%4, i*i))
	}
	roundTrip(t, &Trace{Layer: fmt.Sprintf("%032x", 0)}) // times that are zero, no notes
	far := Entry{
		Path: ".", What: Looked, Order: 1<<32 - 1, Mode: unix.S_IFREG | 0o7777, UID: 1<<32 - 1, GID: 1<<32 - 1, Size: 1<<63 - 1, Modified: -1 << 63,
	}
	near := Entry{Path: "\xff", What: Looked, Mode: unix.S_IFREG, Modified: 1<<63 - 1}
	roundTrip(t, &Trace{Layer: fmt.Sprintf("%032x", 1), Layers: []Layer{{[]Entry{far, near}}, {}}})
}

func roundTrip(t *testing.T, want *Trace) {
	t.Helper()
	b, err := want.Encode(testKey)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b, testKey)
	if err != nil {
		t.Fatal(err)
	}
	if len(want.Notes) == 0 {
		want.Notes = nil // as is the empty one
	}
	got.Started, got.Ended = got.Started.UTC(), got.Ended.UTC()
	want.Started, want.Ended = want.Started.UTC(), want.Ended.UTC()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got\n%+v\nwant\n%+v", got, want)
	}
	again, err := got.Encode(testKey)
	if err != nil || !bytes.Equal(again, b) {
		t.Fatalf("encoded again, it is other bytes (%v)", err)
	}
}

// TestDamage has all truncations of a small trace, and each of its bytes flipped in each bit.
func TestDamage(t *testing.T) {
	whole, err := invent(rand.New(rand.NewPCG(3, 4)), 2, 8).Encode(testKey)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(b []byte, what string, at int) {
		t.Helper()
		if got, err := Decode(b, testKey); got != nil || !typed(err) {
			t.Fatalf("%s at %d: %v, %v", what, at, got, err)
		}
	}
	for i := range whole {
		refused(whole[:i], "truncated", i)
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[i] ^= 1 << bit
			refused(b, "flipped", i)
		}
	}
	refused(append(bytes.Clone(whole), 0), "longer", len(whole))
	for what, test := range map[string]struct {
		b, key []byte
		want   error
	}{
		"another key":     {whole, []byte("another key of thirty-two bytes."), ErrSeal},
		"no key":          {whole, nil, ErrSeal},
		"nothing":         {nil, testKey, ErrFormat},
		"another file":    {bytes.Repeat([]byte("#!/bin/sh\n"), 50), testKey, ErrFormat},
		"another version": {append([]byte(magic+"\x03"), whole[len(magic)+1:]...), testKey, ErrVersion},
		"sealed at once":  {append(append([]byte(magic), version), whole...), testKey, ErrSeal},
	} {
		if _, err := Decode(test.b, test.key); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", what, err, test.want)
		}
	}
}

func typed(err error) bool {
	return slices.ContainsFunc([]error{ErrFormat, ErrVersion, ErrSeal, ErrInvalid, ErrTooLarge}, func(e error) bool { return errors.Is(err, e) })
}

// resealed makes a file with a right seal of any body: what somebody with the key could write.
func resealed(body []byte, size uint32) []byte {
	b := append([]byte(magic), version)
	b = append(b, make([]byte, 32+16+12+12)...)
	b = binary.LittleEndian.AppendUint32(b, size)
	z, _ := encoder()
	b = z.EncodeAll(body, b)
	return append(b, seal(testKey, b)...)
}

// TestHostileBodies has bodies that are sealed, and that no Encode wrote: none is taken, and none takes memory.
func TestHostileBodies(t *testing.T) {
	many := binary.AppendUvarint(nil, 1<<62)
	entry := func(path ...byte) []byte { // one layer, one entry, absent
		return append(append([]byte{0, 1, 1, 0, 0}, path...), byte(Absent), 2)
	}
	start := []byte{0, 1, 0x80, 0x80, 0x04, 0, 0} // one layer, 65,536 entries
	again := append(bytes.Clone(start), bytes.Repeat([]byte{0, 1, 'a'}, 1<<16)...)
	longer := bytes.Clone(start) // each path is the one before and a byte more: two gigabytes
	for i := range 1 << 16 {
		longer = append(binary.AppendUvarint(longer, uint64(i)), 1, 'a')
	}
	for what, test := range map[string]struct {
		body []byte
		want error
	}{
		"nothing":                 {nil, ErrInvalid},
		"many notes":              {many, ErrInvalid},
		"many layers":             {append([]byte{0}, many...), ErrInvalid},
		"many entries":            {append([]byte{0, 1}, many...), ErrInvalid},
		"a path that leads out":   {entry(0, 2, '.', '.'), ErrInvalid},
		"an absolute path":        {entry(0, 2, '/', 'a'), ErrInvalid},
		"a path with a zero byte": {entry(0, 2, 'a', 0), ErrInvalid},
		"an empty path":           {entry(0, 0), ErrInvalid},
		"shares what is not":      {entry(1, 1, 'a'), ErrInvalid},
		"more than is there":      {append(entry(0, 1, 'a'), 0), ErrInvalid},
		"the same path again":     {again, ErrInvalid},
		"longer and longer paths": {longer, ErrTooLarge},
		"a bomb of zeros":         {make([]byte, 1<<20), ErrInvalid},
	} {
		_, err := Decode(resealed(test.body, uint32(len(test.body))), testKey)
		if !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", what, err, test.want)
		}
	}
	good := entry(0, 1, 'a')
	if _, err := Decode(resealed(good, uint32(len(good))), testKey); err != nil {
		t.Errorf("the twin that is right: %v", err)
	}
	exact := uint32(len(good))
	for size, want := range map[uint32]error{0: ErrInvalid, exact - 1: ErrInvalid, exact + 1: ErrInvalid, 1<<32 - 1: ErrTooLarge} {
		if _, err := Decode(resealed(good, size), testKey); !errors.Is(err, want) {
			t.Errorf("size %d: got %v, want %v", size, err, want)
		}
	}
	if _, err := Decode(resealed(make([]byte, maxBody+1), 10), testKey); !errors.Is(err, ErrInvalid) {
		t.Errorf("a bomb: %v", err)
	}
}

// TestEncodeRefuses has traces that could not be read again, or that would compare what nobody saw.
func TestEncodeRefuses(t *testing.T) {
	id := fmt.Sprintf("%032x", 1)
	one := func(e Entry) *Trace { return &Trace{Layer: id, Layers: []Layer{{[]Entry{e}}}} }
	for what, tr := range map[string]*Trace{
		"no layer":       {},
		"odd layer":      {Layer: "../../../../../../../../../etc/abc"},
		"upper case":     {Layer: "ABCDEFABCDEFABCDEFABCDEFABCDEFAB"},
		"not sorted":     {Layer: id, Layers: []Layer{{[]Entry{{Path: "b", What: Absent}, {Path: "a", What: Absent}}}}},
		"twice":          {Layer: id, Layers: []Layer{{[]Entry{{Path: "b", What: Absent}, {Path: "b", What: Absent}}}}},
		"not seen":       one(Entry{Path: "a"}),
		"absent, there":  one(Entry{Path: "a", What: Absent | Looked}),
		"absent, a file": one(Entry{Path: "a", What: Absent, Mode: unix.S_IFREG}),
		"no type":        one(Entry{Path: "a", What: Looked, Mode: 0o644}),
		"listed file":    one(Entry{Path: "a", What: Looked | Listed, Mode: unix.S_IFREG}),
		"listing":        one(Entry{Path: "a", What: Looked | Listed, Mode: unix.S_IFDIR, Listing: []Name{{"..", 4}}}),
		"content":        one(Entry{Path: "a", What: Looked, Mode: unix.S_IFDIR, Content: [32]byte{1}}),
		"notes":          {Layer: id, Notes: map[string]string{"a": string(make([]byte, maxNotes))}},
	} {
		if b, err := tr.Encode(testKey); err == nil {
			t.Errorf("%s: %d bytes", what, len(b))
		}
	}
}

// FuzzDecode gives Decode any bytes, as they are and as the body of a trace with a right seal. What is taken must be written again
// as a trace that is read as the same.
func FuzzDecode(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	for n := range 4 {
		t := invent(r, n, 6)
		b, err := t.Encode(testKey)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(t.body())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, resealed(b, uint32(len(b)))} {
			got, err := Decode(b, testKey)
			if err != nil {
				if !typed(err) {
					t.Fatal(err)
				}
				continue
			}
			again, err := got.Encode(testKey)
			if err != nil {
				t.Fatal(err)
			}
			same, err := Decode(again, testKey)
			if err != nil || !reflect.DeepEqual(got, same) {
				t.Fatalf("%v\n%+v\n%+v", err, got, same)
			}
		}
	})
}

// FuzzRoundTrip encodes and decodes invented traces.
func FuzzRoundTrip(f *testing.F) {
	f.Add(uint64(1), uint8(1), uint16(10), "a/b", "name")
	f.Fuzz(func(t *testing.T, seed uint64, layers uint8, entries uint16, path, note string) {
		tr := invent(rand.New(rand.NewPCG(seed, 0)), int(layers%4), int(entries%500))
		tr.Layers = append(tr.Layers, Layer{[]Entry{{Path: path, What: Absent, Order: uint32(seed)}}})
		if len(note) < maxNotes/4 {
			tr.Notes[note] = note
		}
		if !validPath(path) {
			if _, err := tr.Encode(testKey); err == nil {
				t.Fatalf("%q was encoded", path)
			}
			return
		}
		roundTrip(t, tr)
	})
}
