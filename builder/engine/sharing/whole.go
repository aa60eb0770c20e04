package sharing

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
)

// whole reads a blob. When it was read from its beginning to its end, and is not the one that it should be, the last read is an error. Read in another order it is not checked, and is
// left to who stores it.
//
// Who stores a layer compares its digest, too. But the error that it makes is about what it stores, so nobody could tell that a cache is to blame. Registries' answers are checked on their way.
type whole struct {
	content.ReaderAt
	digest digest.Digest

	mu   sync.Mutex
	sum  digest.Verifier // nil: not checked
	next int64           // where the next read begins
}

func newWhole(r content.ReaderAt, d digest.Digest) *whole {
	w := &whole{ReaderAt: r, digest: d}
	if d.Validate() == nil {
		w.sum = d.Verifier()
	}
	return w
}

func (w *whole) ReadAt(b []byte, off int64) (int, error) {
	n, err := w.ReaderAt.ReadAt(b, off)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.sum == nil || off == w.Size(): // the end is asked for again
		return n, err
	case off != w.next:
		w.sum = nil
		return n, err
	}
	w.sum.Write(b[:n])
	if w.next += int64(n); w.next == w.Size() && !w.sum.Verified() {
		return n, fmt.Errorf("what is there is not %s", w.digest)
	}
	if errors.Is(err, io.EOF) && w.next < w.Size() {
		return n, fmt.Errorf("it ends after %d of %d bytes", w.next, w.Size())
	}
	return n, err
}
