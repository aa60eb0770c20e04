package tocfs

import (
	"sync"
	"time"
)

// parts knows which parts of a blob are here, and fetches those that are needed. Each is fetched once, whoever waits for it.
//
// Requests cost more than bytes: at 100 Mbit/s and 20 ms one takes the time of 250 KB. So more than what is needed is fetched at once, and twice as much each time that somebody goes on where the
// last request ended: to read all files in their order takes not much longer than to fetch the blob. When it is found that most of the blob, or many small pieces of it, are needed, the rest is
// fetched in the background.
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

	// What was waited for.
	fetched int64
	waited  time.Duration
	rate    float64 // bytes in a second, of the fastest request
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
			began := time.Now()
			n, err := p.get(at, until)
			if err != nil {
				return err
			}
			p.next = at + n
			p.note(int64(n)*partBytes, time.Since(began))
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

// note decides whether it would have been better to fetch all of it: when half of it was needed, or when requests have cost a quarter of the time that it would have taken. mu is held.
func (p *parts) note(bytes int64, took time.Duration) {
	p.fetched += bytes
	p.waited += took
	p.rate = max(p.rate, float64(bytes)/max(took, time.Microsecond).Seconds())
	all := float64(p.bytes) / p.rate
	lost := p.waited.Seconds() - float64(p.fetched)/p.rate
	if !p.whole && (p.fetched > p.bytes/2 || lost > all/4 && p.fetched > p.bytes/8) {
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

func (p *parts) stop() {
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.work.Wait()
}
