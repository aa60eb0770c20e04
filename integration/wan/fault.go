package wan

import (
	"bytes"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"time"
)

// Rule says which requests meet a fault. It counts the requests that it matches: the same sequence of them meets the same faults.
type Rule struct {
	Request *regexp.Regexp // matched against "METHOD /path"
	Skip    int            // so many requests pass first
	Times   int            // so many meet the fault then, and all after them pass again; 0: no bound
	Fault   Fault
}

// counted is a rule and how many requests it has matched.
type counted struct {
	Rule
	seen int
}

// fault returns what a request meets, nil for most.
func (p *Proxy) fault(r *http.Request) (f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.rules {
		if !c.Request.MatchString(r.Method + " " + r.URL.Path) {
			continue
		}
		c.seen++
		if f == nil && c.seen > c.Skip && (c.Times == 0 || c.seen <= c.Skip+c.Times) {
			f = c.Fault
			p.counts.Faults++
		}
	}
	return f
}

// Fault is what goes wrong. These are all: Status, Reset, Truncate, Short, Trickle, Corrupt, Delay, Expire.
type Fault interface {
	// strike answers a request. It may panic with http.ErrAbortHandler.
	strike(p *Proxy, w *counter, r *http.Request)
}

// Status answers with an error, having read what was pushed: who answers before may be heard, or be taken for a broken connection.
type Status struct {
	Code       int
	RetryAfter string // the header; "" for none
	Message    string
}

func (f Status) strike(_ *Proxy, w *counter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	if f.RetryAfter != "" {
		w.Header().Set("Retry-After", f.RetryAfter)
	}
	writeError(w, f.Code, map[int]string{429: "TOOMANYREQUESTS", 403: "DENIED", 401: "UNAUTHORIZED", 404: "NOT_FOUND"}[f.Code], f.Message)
}

// Reset breaks the connection off, after so many bytes of the answer, or of what is pushed. 0: there is no answer at all.
type Reset struct{ After int64 }

func (f Reset) strike(p *Proxy, w *counter, r *http.Request) {
	switch {
	case f.After == 0:
		breakOff(w)
	case pushes(r):
		_, _ = io.CopyN(io.Discard, r.Body, f.After)
		breakOff(w)
	}
	p.next.ServeHTTP(&cut{ResponseWriter: w, left: f.After, then: func([]byte) { breakOff(w) }}, r)
}

// Truncate ends the connection after so many bytes of a body that was said to have more.
type Truncate struct{ After int64 }

func (f Truncate) strike(p *Proxy, w *counter, r *http.Request) {
	p.next.ServeHTTP(&cut{ResponseWriter: w, left: f.After, then: func([]byte) {
		flush(w)
		panic(http.ErrAbortHandler)
	}}, r)
}

// Short gives the first bytes of a body as if they were all of it.
type Short struct{ After int64 }

func (f Short) strike(p *Proxy, w *counter, r *http.Request) {
	p.next.ServeHTTP(&cut{ResponseWriter: w, left: f.After, length: strconv.FormatInt(f.After, 10)}, r)
}

// Trickle gives one byte at a time of a body, after so many at once, and breaks the connection off after a while.
type Trickle struct {
	After      int64
	Every, For time.Duration
}

func (f Trickle) strike(p *Proxy, w *counter, r *http.Request) {
	p.next.ServeHTTP(&cut{ResponseWriter: w, left: f.After, then: func(rest []byte) {
		end := time.After(f.For)
		t := time.NewTicker(f.Every)
		defer t.Stop()
		flush(w)
		for _, b := range rest {
			select {
			case <-t.C:
				_, _ = w.Write([]byte{b})
				flush(w)
			case <-r.Context().Done():
				panic(http.ErrAbortHandler)
			case <-end:
				breakOff(w)
			}
		}
	}}, r)
}

// Corrupt changes one byte of a body: the length is right, the digest is not.
type Corrupt struct{ At int64 }

func (f Corrupt) strike(p *Proxy, w *counter, r *http.Request) {
	c := &cut{ResponseWriter: w, left: f.At}
	c.then = func(rest []byte) {
		changed := bytes.Clone(rest)
		changed[0] ^= 1
		_, _ = w.Write(changed)
		c.then = func(rest []byte) { _, _ = w.Write(rest) }
	}
	p.next.ServeHTTP(c, r)
}

// Delay answers later.
type Delay struct{ For time.Duration }

func (f Delay) strike(p *Proxy, w *counter, r *http.Request) {
	t := time.NewTimer(f.For)
	defer t.Stop()
	select {
	case <-t.C:
		p.next.ServeHTTP(w, r)
	case <-r.Context().Done():
	}
}

// Expire makes all tokens invalid that were given. The request, and all after it, need one of those that /token gives from then on.
type Expire struct{}

func (Expire) strike(p *Proxy, w *counter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	p.mu.Lock()
	p.tokens++
	p.mu.Unlock()
	p.challenge(w, r)
}

// pushes tells whether a request has a body.
func pushes(r *http.Request) bool {
	return (r.Method == http.MethodPut || r.Method == http.MethodPatch || r.Method == http.MethodPost) && r.ContentLength != 0
}

// cut passes so many bytes of a body, and gives the rest to a function.
type cut struct {
	http.ResponseWriter
	left   int64
	length string       // the Content-Length to tell in place of the right one; "" leaves it
	then   func([]byte) // nil drops it
	begun  bool
}

func (c *cut) WriteHeader(status int) {
	c.begun = true
	if c.length != "" && c.Header().Get("Content-Length") != "" {
		c.Header().Set("Content-Length", c.length)
	}
	c.ResponseWriter.WriteHeader(status)
}

func (c *cut) Write(b []byte) (int, error) {
	if !c.begun {
		c.WriteHeader(http.StatusOK)
	}
	now := b[:min(int64(len(b)), c.left)]
	if len(now) > 0 {
		if n, err := c.ResponseWriter.Write(now); err != nil {
			return n, err
		}
		c.left -= int64(len(now))
	}
	if rest := b[len(now):]; len(rest) > 0 && c.then != nil {
		c.then(rest)
	}
	return len(b), nil
}

func flush(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() }

// breakOff ends a connection, and the handler. Connections that came over no Link are closed, not reset.
func breakOff(w *counter) {
	c := http.NewResponseController(w)
	if w.status != 0 { // flushing nothing would send headers
		_ = c.Flush()
	}
	conn, _, err := c.Hijack()
	if e, ok := conn.(*end); ok {
		e.breakOff()
	} else if err == nil {
		conn.Close()
	}
	panic(http.ErrAbortHandler)
}
