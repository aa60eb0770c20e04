package registry

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/log"

	"github.com/optbuild/optbuild/cache/origin"
)

const (
	// firstPause doubles with each attempt, up to maxRetries: 0.5 s, 1 s, 2 s, 4 s.
	firstPause = 500 * time.Millisecond
	maxRetries = 4
	// maxPause is the longest that a registry's Retry-After is obeyed; with a longer one the request fails at once.
	maxPause = 30 * time.Second
	// forgetAfter is when an address that used up its retries gets new ones.
	forgetAfter = 30 * time.Second
)

// retry tries a request again, with growing pauses, when the registry is overloaded (429, 5xx) or drops the connection.
//
// It fills a gap: containerd repeats a request that met 429, 500, 503 or 504 at once, without a pause; BuildKit repeats
// fetching or pushing a blob with pauses of 1, 2 and 4 s, but not resolving a name or fetching a token, nothing on 429,
// and without regard for Retry-After. As both call this again, retries are counted per address and not per call: a
// registry that stays down is given maxRetries pauses in all, not in each of their rounds.
//
// A request whose body is a stream (a blob or manifest that is being pushed) is not repeated here but by its sender, which
// has the content: for those it only makes the pause.
type retry struct {
	next  http.RoundTripper
	pause func(context.Context, time.Duration) error
	now   func() time.Time

	mu     sync.Mutex
	failed map[string]failure
}

// failure is the record of an address whose last answer was not usable.
type failure struct {
	times int
	last  time.Time
}

func newRetry(next http.RoundTripper) *retry {
	return &retry{next: next, pause: origin.Sleep, now: time.Now, failed: map[string]failure{}}
}

func (t *retry) RoundTrip(r *http.Request) (*http.Response, error) {
	for {
		resp, err := t.next.RoundTrip(r)
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" && op.Timeout() {
			return resp, unreachable(err.Error())
		}
		if !transient(r, resp, err) {
			t.succeeded(r)
			return resp, err
		}
		pause, ok := t.count(r, resp)
		if !ok {
			return resp, err
		}
		again, ok := replay(r)
		entry := log.G(r.Context()).WithField("url", r.URL.Redacted())
		if err != nil {
			entry.WithError(err).Warnf("trying again in %v", pause)
		} else {
			entry.WithField("status", resp.Status).Warnf("trying again in %v", pause)
		}
		if !ok { // its sender repeats it
			_ = t.pause(r.Context(), pause)
			return resp, err
		}
		if resp != nil {
			_, _ = io.CopyN(io.Discard, resp.Body, 4096)
			resp.Body.Close()
		}
		if err := t.pause(r.Context(), pause); err != nil {
			return nil, err
		}
		r = again
	}
}

// unreachable is a connection attempt that timed out, after 30 s. It is not a timeout to its callers: containerd would make
// five attempts.
type unreachable string

func (e unreachable) Error() string { return string(e) }

// transient tells whether the same request can be expected to succeed later.
func transient(r *http.Request, resp *http.Response, err error) bool {
	if err != nil {
		dropped := errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
			errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		return dropped && (r.Method == http.MethodGet || r.Method == http.MethodHead)
	}
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable: // refused before anything was done
		return true
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout:
		return r.Method == http.MethodGet || r.Method == http.MethodHead
	}
	return false
}

// count counts a failure and returns how long to wait, false when it is time to give up.
func (t *retry) count(r *http.Request, resp *http.Response) (time.Duration, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key, now := r.Method+" "+r.URL.Host+r.URL.Path, t.now()
	f := t.failed[key]
	if now.Sub(f.last) > forgetAfter {
		f = failure{}
	}
	pause := firstPause << min(f.times, maxRetries)
	pause += rand.N(pause / 4) // so that parallel requests do not come back all at once
	if after, ok := retryAfter(resp, now); ok {
		pause = max(after, pause)
	}
	f.times++
	f.last = now.Add(min(pause, maxPause))
	t.failed[key] = f
	return pause, f.times <= maxRetries && pause <= maxPause
}

func (t *retry) succeeded(r *http.Request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.failed, r.Method+" "+r.URL.Host+r.URL.Path)
}

// retryAfter reads the header, which is in seconds or a date.
func retryAfter(resp *http.Response, now time.Time) (time.Duration, bool) {
	if resp == nil {
		return 0, false
	}
	v := resp.Header.Get("Retry-After")
	if s, err := strconv.Atoi(v); err == nil && s >= 0 {
		return time.Duration(min(s, 1<<30)) * time.Second, true
	}
	if date, err := http.ParseTime(v); err == nil {
		return max(0, date.Sub(now)), true
	}
	return 0, false
}

// replay returns a copy of a request that can be sent again, false for one whose body is a stream.
func replay(r *http.Request) (*http.Request, bool) {
	again := r.Clone(r.Context())
	switch {
	case r.Body == nil || r.Body == http.NoBody:
		return again, true
	case r.Method != http.MethodPost || r.GetBody == nil: // pushes have a GetBody, too, but it is for their sender
		return nil, false
	}
	body, err := r.GetBody()
	if err != nil {
		return nil, false
	}
	again.Body = body
	return again, true
}
