package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/optbuild/optbuild/cache/origin"
)

// recorder is a registry that fails before it answers, and a client that records its pauses instead of making them.
type recorder struct {
	client *http.Client
	url    string
	pauses []time.Duration

	mu   sync.Mutex
	sent []string // what the registry was asked; guarded by mu
}

// log is what the registry was asked so far.
func (rec *recorder) log() []string {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return slices.Clone(rec.sent)
}

func newRecorder(t *testing.T, fail func(w http.ResponseWriter, n int) bool) *recorder {
	t.Helper()
	rec := &recorder{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		rec.mu.Lock()
		rec.sent = append(rec.sent, r.Method+" "+string(body))
		n := len(rec.sent)
		rec.mu.Unlock()
		if !fail(w, n) {
			io.WriteString(w, "ok")
		}
	}))
	t.Cleanup(s.Close)
	rt := newRetry(http.DefaultTransport)
	rt.pause = func(ctx context.Context, d time.Duration) error {
		rec.pauses = append(rec.pauses, d)
		return ctx.Err()
	}
	rec.client, rec.url = &http.Client{Transport: rt}, s.URL
	return rec
}

// send returns what came of a request: status and body, or "error".
func (rec *recorder) send(method, body string, stream bool) string {
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, _ := http.NewRequest(method, rec.url+"/v2/", r)
	if stream {
		req.GetBody = nil
	}
	resp, err := rec.client.Do(req)
	if err != nil {
		return "error"
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return fmt.Sprint(resp.StatusCode, " ", string(b))
}

func failTimes(times, status int, header ...string) func(http.ResponseWriter, int) bool {
	return func(w http.ResponseWriter, n int) bool {
		if n > times {
			return false
		}
		if status == 0 {
			panic(http.ErrAbortHandler)
		}
		if len(header) == 2 {
			w.Header().Set(header[0], header[1])
		}
		w.WriteHeader(status)
		return true
	}
}

func TestRetry(t *testing.T) {
	for _, tt := range []struct {
		name         string
		fail         func(http.ResponseWriter, int) bool
		method, body string
		stream       bool
		want         string
		requests     int
		pauses       []time.Duration // at least; at most a quarter more
	}{
		{name: "503 twice", fail: failTimes(2, 503), method: "GET", want: "200 ok", requests: 3, pauses: []time.Duration{firstPause, 2 * firstPause}},
		{name: "500 for ever", fail: failTimes(99, 500), method: "HEAD", want: "500 ", requests: 5, pauses: []time.Duration{firstPause, 2 * firstPause, 4 * firstPause, 8 * firstPause}},
		{name: "connection dropped", fail: failTimes(1, 0), method: "GET", want: "200 ok", requests: 2, pauses: []time.Duration{firstPause}},
		{name: "Retry-After", fail: failTimes(1, 429, "Retry-After", "7"), method: "GET", want: "200 ok", requests: 2, pauses: []time.Duration{7 * time.Second}},
		{name: "Retry-After beyond patience", fail: failTimes(1, 429, "Retry-After", "3600"), method: "GET", want: "429 ", requests: 1},
		{name: "404 is an answer", fail: failTimes(1, 404), method: "GET", want: "404 ", requests: 1},
		{name: "a POST that was refused", fail: failTimes(1, 503), method: "POST", body: "a=b", want: "200 ok", requests: 2, pauses: []time.Duration{firstPause}},
		{name: "a POST that may have been done", fail: failTimes(1, 500), method: "POST", body: "a=b", want: "500 ", requests: 1},
		{name: "a stream only pauses", fail: failTimes(1, 429), method: "PUT", body: "blob", stream: true, want: "429 ", requests: 1, pauses: []time.Duration{firstPause}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rec := newRecorder(t, tt.fail)
			if got := rec.send(tt.method, tt.body, tt.stream); got != tt.want {
				t.Errorf("answer %q, want %q", got, tt.want)
			}
			want := strings.Repeat(tt.method+" "+tt.body+"\n", tt.requests)
			if got := strings.Join(rec.log(), "\n") + "\n"; got != want {
				t.Errorf("requests:\n%swant:\n%s", got, want)
			}
			if len(rec.pauses) != len(tt.pauses) {
				t.Fatalf("pauses %v, want %v", rec.pauses, tt.pauses)
			}
			for i, p := range rec.pauses {
				if p < tt.pauses[i] || p > tt.pauses[i]*5/4 {
					t.Errorf("pauses %v, want about %v", rec.pauses, tt.pauses)
				}
			}
		})
	}
}

// Callers that try again themselves must not multiply the pauses.
func TestRetriesAreCountedPerAddress(t *testing.T) {
	rec := newRecorder(t, failTimes(99, 503))
	rt := rec.client.Transport.(*retry)
	now := time.Unix(1e9, 0)
	rt.now = func() time.Time { return now }
	for range 3 {
		rec.send("GET", "", false)
	}
	if len(rec.log()) != 7 || len(rec.pauses) != maxRetries {
		t.Errorf("%d requests and %d pauses, want 7 and %d", len(rec.log()), len(rec.pauses), maxRetries)
	}
	now = now.Add(2 * (forgetAfter + maxPause))
	rec.send("GET", "", false)
	if len(rec.pauses) != 2*maxRetries {
		t.Errorf("%d pauses after a while, want %d", len(rec.pauses), 2*maxRetries)
	}
}

func TestRetryEndsWithItsContext(t *testing.T) {
	rec := newRecorder(t, failTimes(99, 503))
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("stopped")
	rec.client.Transport.(*retry).pause = func(ctx context.Context, d time.Duration) error {
		cancel(cause)
		return origin.Sleep(ctx, d)
	}
	req, _ := http.NewRequestWithContext(ctx, "GET", rec.url, nil)
	if _, err := rec.client.Do(req); !errors.Is(err, cause) && !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, cause)
	}
	if len(rec.log()) != 1 {
		t.Errorf("%d requests, want 1", len(rec.log()))
	}
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// containerd makes five attempts, of 30 s each, when an error calls itself a timeout.
func TestUnreachableIsNoTimeout(t *testing.T) {
	rt := newRetry(roundTripFunc(func(*http.Request) (*http.Response, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
	}))
	_, err := (&http.Client{Transport: rt}).Get("http://r.example")
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() || err.Error() != `Get "http://r.example": dial tcp: i/o timeout` {
		t.Errorf("error %v, a timeout: %v", err, ne != nil && ne.Timeout())
	}
}

func TestReadableErrors(t *testing.T) {
	for _, tt := range []struct{ contentType, body, want string }{
		{"application/json", `{"errors":[{"code":"DENIED","message":"no","detail":"over quota"}]}`, `{"errors":[{"code":"DENIED","message":"no: over quota"}]}`},
		{"application/json", `{"errors":[{"code":"DENIED","message":"no","detail":{"reason":"over quota"}}]}`, `{"errors":[{"code":"DENIED","message":"no: over quota"}]}`},
		{"application/json", `{"errors":[{"code":"DENIED","message":"no","detail":[{"Type":"repository"}]}]}`, `{"errors":[{"code":"DENIED","message":"no","detail":[{"Type":"repository"}]}]}`},
		{"application/json", `{"details":"incorrect password"}`, `{"errors":[{"code":"UNKNOWN","message":"incorrect password"}]}`},
		{"text/plain", "tag is\nimmutable\n", `{"errors":[{"code":"UNKNOWN","message":"tag is immutable"}]}`},
		{"text/html; charset=utf-8", "<html>502</html>", "<html>502</html>"},
		{"", "\x1f\x8b\x00", "\x1f\x8b\x00"},
		{"", "", ""},
	} {
		if got := rewriteErrors(tt.contentType, []byte(tt.body)); !bytes.Equal(got, []byte(tt.want)) {
			t.Errorf("%s\ngot  %s\nwant %s", tt.body, got, tt.want)
		}
	}
	if got := clip(strings.Repeat("é", maxMessage)); !strings.HasSuffix(got, "é... (1024 more bytes)") {
		t.Errorf("clipped to %q", got[len(got)-40:])
	}
}
