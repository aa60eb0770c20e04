// Package samefile compares the content of files.
package samefile

import (
	"bytes"
	"io"
	"os"
)

// Buffers are for comparing files one after the other; they serve one comparison at a time.
type Buffers [2][]byte

// NewBuffers makes them.
func NewBuffers() Buffers { return Buffers{make([]byte, 32<<10), make([]byte, 32<<10)} }

// Content compares two files by their names.
func Content(a, b string) (bool, error) {
	f, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer f.Close()
	g, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer g.Close()
	return NewBuffers().Bytes(f, g)
}

// Bytes compares what two readers give.
func (b Buffers) Bytes(f, g io.Reader) (bool, error) {
	x, y := b[0], b[1]
	for {
		n, errF := io.ReadFull(f, x)
		m, errG := io.ReadFull(g, y)
		if err := failed(errF, errG); err != nil {
			return false, err
		}
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if errF != nil || errG != nil { // the end, of both: a full buffer on one side only would be a difference
			return true, nil
		}
	}
}

func failed(errs ...error) error {
	for _, err := range errs {
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return err
		}
	}
	return nil
}
