package viewer

import (
	"bufio"
	"encoding/gob"
	"io"
	"sync"
	"time"

	"github.com/optbuild/optbuild/builder/trace"
)

// Requests and answers are gob values on a stream. Both ends are the same binary: there are no versions. Each request has one answer or
// several, which may come among those of others.

// request asks to mount directories or to close them.
type request struct {
	ID    uint64 // from 1
	Mount []Directory
	Close uint64        // the request that mounted what is to be closed; 0: this one mounts
	Wait  time.Duration // how long the closing may wait for those that use the views
}

// answer is a part of what there is to say to a request.
type answer struct {
	ID    uint64
	View  int          // that Seen is of
	Seen  []trace.Seen // to be added to what came before
	More  bool         // this is not the last part
	Error string       // in the last part; "" means success
}

// chunk bounds the names in one answer: a record may have a million, and others wait for their answers.
const chunk = 4096

// sender writes values to a stream, one at a time.
type sender struct {
	mu  sync.Mutex
	w   *bufio.Writer
	enc *gob.Encoder
}

func newSender(w io.Writer) *sender {
	b := bufio.NewWriterSize(w, 64<<10)
	return &sender{w: b, enc: gob.NewEncoder(b)}
}

func (s *sender) send(v any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enc.Encode(v); err != nil {
		return err
	}
	return s.w.Flush()
}

func newReceiver(r io.Reader) *gob.Decoder { return gob.NewDecoder(bufio.NewReaderSize(r, 64<<10)) }
