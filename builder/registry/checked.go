package registry

import (
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"path"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
)

// checked looks after the bodies of answers. What is asked for by a digest has it, or is an error before its last byte: some readers stop at the length that they expect, and would
// never see an error at the end. What comes too slowly, or no more, is an error, too.
//
// containerd and BuildKit compare layers with their digests when they store them, but BuildKit's importer takes the index of a cache as it comes: a byte changed on the way
// there made another image.
type checked struct {
	next http.RoundTripper
	// A body must have brought least bytes in each period.
	period time.Duration
	least  int
}

// Bounds of slowness: half a kilobyte in a second, over half a minute.
const (
	slowPeriod = 30 * time.Second
	slowLeast  = 16 << 10
)

func newChecked(next http.RoundTripper) *checked {
	return &checked{next: next, period: slowPeriod, least: slowLeast}
}

func (t *checked) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	if err != nil || r.Method != http.MethodGet || resp.Body == nil {
		return resp, err
	}
	switch resp.StatusCode {
	case http.StatusOK:
		d, err := asked(first(r).URL.Path) // after a redirection, the address says nothing of what is there
		body := io.ReadCloser(newSteady(resp.Body, t.period, t.least))
		if err == nil && d.Algorithm().Available() && !resp.Uncompressed {
			body = &checkedBody{ReadCloser: body, digest: d, hash: d.Algorithm().Hash()}
		}
		resp.Body = body
	case http.StatusPartialContent:
		resp.Body = newSteady(resp.Body, t.period, t.least)
	}
	return resp, nil
}

// asked is the digest of what an address of the distribution API is of. That of referrers ends with a digest, too, but of something else.
func asked(address string) (digest.Digest, error) {
	kind := path.Base(path.Dir(address))
	if kind != "blobs" && kind != "manifests" {
		return "", fmt.Errorf("%s: %w", address, errors.ErrUnsupported)
	}
	return digest.Parse(path.Base(address))
}

// first is the request that a redirected one began with.
func first(r *http.Request) *http.Request {
	for r.Response != nil && r.Response.Request != nil {
		r = r.Response.Request
	}
	return r
}

// ErrDigest says that something else came than was asked for.
var ErrDigest = errors.New("what the registry sent is not what was asked for")

// wrongBody is a body that has not the digest. Perhaps something is missing at its end: BuildKit asks for the rest after an error that counts as a broken connection, and compares the whole
// in the end.
type wrongBody struct{ digest digest.Digest }

func (e wrongBody) Error() string { return fmt.Sprintf("%v: it is not %s", ErrDigest, e.digest) }

func (e wrongBody) Is(target error) bool { return target == ErrDigest || target == syscall.ECONNRESET }

// checkedBody keeps the last byte back until all are known to be right.
type checkedBody struct {
	io.ReadCloser
	digest digest.Digest
	hash   hash.Hash
	held   []byte // one byte, or none
	err    error
}

func (b *checkedBody) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for b.err == nil {
		n, err := b.ReadCloser.Read(p)
		b.hash.Write(p[:n])
		if err == io.EOF && digest.NewDigest(b.digest.Algorithm(), b.hash) != b.digest {
			err = wrongBody{b.digest}
		}
		b.err = err
		switch {
		case err != nil && err != io.EOF:
			return 0, err
		case n == 0:
		case len(b.held) == 0:
			b.held = []byte{p[n-1]}
			if n > 1 {
				return n - 1, nil
			}
		default:
			last := p[n-1]
			copy(p[1:n], p[:n-1])
			p[0], b.held[0] = b.held[0], last
			return n, nil
		}
	}
	if b.err == io.EOF && len(b.held) > 0 {
		p[0], b.held = b.held[0], nil
		return 1, nil
	}
	return 0, b.err
}

// steady is a body that ends with an error when it brings too little in the time that it is waited for. How long its reader takes between two reads does not count.
type steady struct {
	io.ReadCloser
	period time.Duration
	least  int

	waited time.Duration // for got bytes
	got    int
}

func newSteady(body io.ReadCloser, period time.Duration, least int) *steady {
	return &steady{ReadCloser: body, period: period, least: least}
}

func (s *steady) Read(p []byte) (int, error) {
	var silent atomic.Bool
	timer := time.AfterFunc(s.period, func() {
		silent.Store(true)
		s.ReadCloser.Close() // which ends the read
	})
	began := time.Now()
	n, err := s.ReadCloser.Read(p)
	timer.Stop()
	s.waited += time.Since(began)
	s.got += n
	if s.waited < s.period && !silent.Load() {
		return n, err
	}
	if silent.Load() || err == nil && s.got < s.least {
		return n, fmt.Errorf("the registry sends too slowly: %d bytes in %v", s.got, s.waited.Round(time.Second))
	}
	s.waited, s.got = 0, 0
	return n, err
}
