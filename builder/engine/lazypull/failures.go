package lazypull

import (
	"fmt"
	"sync"

	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/cache/remote"
)

// failures are the readings that came to nothing.
type failures struct {
	mu   sync.Mutex
	n    int                // how many there were
	last map[string]failure // of each layer, by its id
	next chan struct{}      // closed at the next one; nil if nobody waits
}

type failure struct {
	n   int // how many there were then, with it
	err error
}

func (f *failures) add(id string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
	if f.next != nil {
		close(f.next)
		f.next = nil
	}
	if f.last == nil {
		f.last = map[string]failure{}
	}
	f.last[id] = failure{f.n, err}
}

// coming returns how many there were, and what is closed at the next one.
func (f *failures) coming() (int, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.next == nil {
		f.next = make(chan struct{})
	}
	return f.n, f.next
}

// since returns a failure after so many, of a layer that is asked for; nil if there is none.
func (f *failures) since(n int, asked func(id string) bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var first failure
	for id, l := range f.last {
		if l.n > n && asked(id) && (first.err == nil || l.n < first.n) {
			first = l
		}
	}
	return first.err
}

// Failed is what the server calls before somebody gets an I/O error.
func (p *Puller) Failed(id, reason string) {
	p.mu.Lock()
	s := p.sources[id]
	p.mu.Unlock()
	if s != nil {
		p.fail(s.layer, reason)
	}
}

func (p *Puller) fail(l layer, reason string) {
	err := fmt.Errorf("a layer of %s can't be read any more: %s: %s", l.Ref, l.Digest, reason)
	if l.Cache {
		err = fmt.Errorf("%s %s %s: %s", l.Digest, remote.CantRead, l.Ref, reason)
	}
	p.failures.add(l.id(), err)
	logrus.WithError(err).Debug("a reader gets an I/O error")
}
