package tocfs

import (
	"sync"
)

// parts knows which parts of a blob are here, and fetches those that are needed. Each is fetched once, whoever waits for it.
//
// Requests cost more than bytes: at 100 Mbit/s and 20 ms one takes the time of 250 KB. So more than what is needed is fetched at once, and twice as much each time that somebody goes on where the
// last request ended: to read all files in their order takes not much longer than to fetch the blob. When an eighth of it was needed, the rest is fetched in the background: in requests of the
// smallest size that eighth takes twice the time that it takes in a large one, so that a step that goes on to read all of it waits for an eighth longer.
type parts struct {
	bytes int64
	fetch func(off, size int64) error

	work sync.WaitGroup

	mu     sync.Mutex
	change *sync.Cond
	state  []state // by part
	next   int     // where the last request ended
	window int64   // how much the next one fetches, at least
	whole  bool    // the rest is being fetched, or has been
	ended  bool

	opened  bool  // the table of contents has been read: from now on it counts what is fetched
	fetched int64 // bytes that somebody has waited for
}

type state uint8

const (
	missing state = iota
	coming
	here
)

const (
	minWindow = 256 << 10
	maxWindow = 8 << 20
)

func newParts(bytes int64, fetch func(off, size int64) error) *parts {
	p := &parts{bytes: bytes, fetch: fetch, state: make([]state, (bytes+partBytes-1)/partBytes), window: minWindow, next: -1}
	p.change = sync.NewCond(&p.mu)
	return p
}

// need returns when a range of the blob is here.
func (p *parts) need(off, size int64) error {
	first, end := int(off/partBytes), int(min(off+size+partBytes-1, p.bytes+partBytes-1)/partBytes)
	p.mu.Lock()
	defer p.mu.Unlock()
	for at := first; at < end; {
		switch p.state[at] {
		case here:
			at++
		case coming:
			p.change.Wait()
		default:
			if at == p.next {
				p.window = min(2*p.window, maxWindow)
			} else {
				p.window = minWindow
			}
			until := max(end, at+int(p.window/partBytes))
			n, err := p.get(at, until)
			if err != nil {
				return err
			}
			p.next = at + n
			p.note(int64(n) * partBytes)
		}
	}
	return nil
}

// get fetches the parts from at on, up to one that is here or on its way. mu is held, but not while it waits.
func (p *parts) get(at, until int) (n int, err error) {
	end := at
	for ; end < min(until, len(p.state)) && p.state[end] == missing; end++ {
		p.state[end] = coming
	}
	p.mu.Unlock()
	off := int64(at) * partBytes
	err = p.fetch(off, min(int64(end)*partBytes, p.bytes)-off)
	p.mu.Lock()
	for i := at; i < end; i++ {
		p.state[i] = here
		if err != nil {
			p.state[i] = missing // who waits for it tries by himself
		}
	}
	p.change.Broadcast()
	return end - at, err
}

// note counts what was waited for. mu is held.
func (p *parts) note(bytes int64) {
	if !p.opened {
		return
	}
	p.fetched += bytes
	if !p.whole && p.fetched > p.bytes/8 {
		p.whole = true
		p.work.Go(p.rest)
	}
}

// rest fetches all that is missing.
func (p *parts) rest() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for at := 0; at < len(p.state); {
		if p.state[at] != missing || p.ended {
			at++
			continue
		}
		n, err := p.get(at, at+maxWindow/2/partBytes)
		if err != nil {
			return // who needs it will be told
		}
		at += n
	}
}

func (p *parts) open() {
	p.mu.Lock()
	p.opened = true
	p.mu.Unlock()
}

func (p *parts) stop() {
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.work.Wait()
}
