package compress

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"sync"

	"github.com/sirupsen/logrus"
)

// Memo remembers pieces of gzip that were compressed, so that a layer that is compressed again with a few files more costs little more than reading it. What is remembered changes no byte
// of any blob. It lies in a file without a name, which goes with the process. Its methods may be called concurrently.
type Memo struct {
	dir  string
	most int64 // bytes of compressed pieces

	mu            sync.Mutex
	kept          *kept // nil until there is something
	found, missed int   // pieces that were asked for
}

// kept are pieces in one file.
type kept struct {
	file   *os.File
	size   int64
	pieces map[pieceKey]span
}

type pieceKey [sha256.Size]byte

type span struct{ at, length int64 }

// memoBytes is enough for the RUNs of nearly all images. With more, all is forgotten, and it begins anew.
const memoBytes = 1 << 30

// NewMemo returns a Memo whose file is made in dir, once there is something to remember.
func NewMemo(dir string) *Memo { return &Memo{dir: dir, most: memoBytes} }

// deflate does what the function deflate does, and asks the memo first, if there is anything in it. With fill, it remembers what it makes.
func (m *Memo) deflate(out *bytes.Buffer, in, before []byte, level int, last, fill bool) error {
	if m == nil || !fill && m.empty() {
		return deflate(out, in, before, level, last)
	}
	k := keyOf(in, before, level, last)
	if m.find(out, k) {
		return nil
	}
	if err := deflate(out, in, before, level, last); err != nil {
		return err
	}
	if fill {
		if err := m.put(k, out.Bytes()); err != nil {
			logrus.WithError(err).Debug("remember a piece of a layer") // it costs time, later
		}
	}
	return nil
}

// keyOf is a key of all that a piece's bytes depend on.
func keyOf(in, before []byte, level int, last bool) (k pieceKey) {
	h := sha256.New()
	fmt.Fprintln(h, Key(Gzip, &level), last)
	var length [8]byte
	binary.LittleEndian.PutUint64(length[:], uint64(len(before)))
	h.Write(length[:])
	h.Write(before)
	h.Write(in)
	h.Sum(k[:0])
	return k
}

func (m *Memo) empty() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.kept == nil
}

// find appends a piece to out, and returns whether it did.
func (m *Memo) find(out *bytes.Buffer, k pieceKey) bool {
	m.mu.Lock()
	kept := m.kept
	var s span
	found := kept != nil
	if found {
		s, found = kept.pieces[k]
	}
	if found {
		m.found++
	} else {
		m.missed++
	}
	m.mu.Unlock()
	if !found {
		return false
	}
	out.Grow(int(s.length))
	b := out.AvailableBuffer()[:s.length]
	if _, err := kept.file.ReadAt(b, s.at); err != nil {
		logrus.WithError(err).Debug("read a piece of a layer")
		return false
	}
	out.Write(b)
	return true
}

func (m *Memo) put(k pieceKey, b []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.kept != nil && m.kept.size+int64(len(b)) > m.most {
		m.kept = nil // its file is closed when the last reader has done with it
	}
	if m.kept == nil {
		f, err := os.CreateTemp(m.dir, "pieces-")
		if err != nil {
			return err
		}
		if err := os.Remove(f.Name()); err != nil {
			f.Close()
			return err
		}
		m.kept = &kept{file: f, pieces: map[pieceKey]span{}}
	}
	if _, ok := m.kept.pieces[k]; ok {
		return nil
	}
	if _, err := m.kept.file.WriteAt(b, m.kept.size); err != nil {
		return err
	}
	m.kept.pieces[k] = span{m.kept.size, int64(len(b))}
	m.kept.size += int64(len(b))
	return nil
}

// Asked returns how many pieces were asked for that were remembered, and how many that were not.
func (m *Memo) Asked() (found, missed int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.found, m.missed
}
