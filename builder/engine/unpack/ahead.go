package unpack

import (
	"io"
	"os"
)

// Enough that the writing of a large file, or of many small ones, does not stop the decompression: 4 MiB.
const (
	blockBytes = 512 << 10
	blocks     = 8
)

// ahead reads from another reader in a goroutine, some blocks ahead of who reads from it. It is for one reader.
type ahead struct {
	full  chan block // the last one has an error
	empty chan []byte
	stop  chan struct{} // closed by Close
	done  chan struct{} // closed when nothing is read any more

	block // what is read from now
	last  error
}

// block is what was read at once. At the end of data there may be an error.
type block struct {
	data  []byte
	whole []byte // that data is a part of
	err   error
}

func newAhead(r io.Reader) *ahead {
	a := &ahead{full: make(chan block, blocks), empty: make(chan []byte, blocks), stop: make(chan struct{}), done: make(chan struct{})}
	for range blocks {
		a.empty <- nil // made when it is needed: most layers are small
	}
	go a.fill(r)
	return a
}

func (a *ahead) fill(r io.Reader) {
	defer close(a.done)
	for {
		var b block
		select {
		case b.whole = <-a.empty:
		case <-a.stop:
			return
		}
		if b.whole == nil {
			b.whole = make([]byte, blockBytes)
		}
		n := 0
		for n < len(b.whole) && b.err == nil {
			var m int
			m, b.err = r.Read(b.whole[n:])
			n += m
		}
		b.data = b.whole[:n]
		a.full <- b // has room for all blocks
		if b.err != nil {
			return
		}
	}
}

func (a *ahead) Read(p []byte) (int, error) {
	for len(a.data) == 0 {
		if a.last != nil {
			return 0, a.last
		}
		if a.whole != nil {
			a.empty <- a.whole
			a.whole = nil
		}
		select {
		case a.block = <-a.full:
			a.last = a.err
		case <-a.stop:
			a.last = os.ErrClosed
		}
	}
	n := copy(p, a.data)
	a.data = a.data[n:]
	return n, nil
}

// Close may be called more than once, one call after another. It returns when nothing is read from the other reader any more.
func (a *ahead) Close() error {
	select {
	case <-a.stop:
	default:
		close(a.stop)
	}
	<-a.done
	return nil
}
