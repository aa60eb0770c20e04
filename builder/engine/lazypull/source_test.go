package lazypull

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// registry answers requests with what a function makes of them.
type registry func(*http.Request) (*http.Response, error)

func (r registry) RoundTrip(req *http.Request) (*http.Response, error) { return r(req) }

// slow is a body that waits before each part. It ends with its request.
type slow struct {
	r     *http.Request
	wait  time.Duration
	parts [][]byte
	rest  []byte // of a part
}

func (s *slow) Read(p []byte) (int, error) {
	if len(s.rest) > 0 {
		n := copy(p, s.rest)
		s.rest = s.rest[n:]
		return n, nil
	}
	if len(s.parts) == 0 {
		return 0, io.EOF
	}
	select {
	case <-time.After(s.wait):
	case <-s.r.Context().Done():
		return 0, s.r.Context().Err()
	}
	s.rest, s.parts = s.parts[0], s.parts[1:]
	return s.Read(p)
}
func (*slow) Close() error { return nil }

func get(t *testing.T, s *source, r registry, header ...string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://registry/blob", nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(header) > 0 {
		req.Header.Set(header[0], header[1])
	}
	return (&watched{r, s}).RoundTrip(req)
}

func repeated(part []byte, n int) (parts [][]byte) {
	for range n {
		parts = append(parts, part)
	}
	return parts
}

// TestStall: a registry that sends next to nothing is given up, whether it answers or not; one that is only slow is waited for however long it takes.
func TestStall(t *testing.T) {
	for _, tc := range []struct {
		name  string
		wait  time.Duration
		parts [][]byte
		after time.Duration // it is given up; 0: it is not
	}{
		{"slow", stallWait - time.Millisecond, repeated(make([]byte, stallBytes), 30), 0},
		{"silent", time.Hour, repeated(make([]byte, stallBytes), 1), stallWait},
		{"trickling", time.Second, repeated([]byte{0}, 100), stallWait},
		{"silent after a while", 3 * time.Second, append(repeated(make([]byte, stallBytes), 4), repeated([]byte{0}, 9)...), 12*time.Second + stallWait},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				resp, err := get(t, &source{}, func(r *http.Request) (*http.Response, error) {
					return &http.Response{StatusCode: http.StatusPartialContent, Header: http.Header{}, Body: &slow{r: r, wait: tc.wait, parts: tc.parts}}, nil
				})
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				_, err = io.Copy(io.Discard, resp.Body)
				if tc.after == 0 {
					if err != nil {
						t.Errorf("given up after %s: %v", time.Since(began), err)
					}
					return
				}
				if err == nil || !strings.Contains(err.Error(), "registry sends next to nothing") || time.Since(began) != tc.after {
					t.Errorf("got %v after %s, want it after %s", err, time.Since(began), tc.after)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, err := get(t, &source{}, func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		if err == nil || !strings.Contains(err.Error(), "sends next to nothing") || time.Since(began) != stallWait {
			t.Errorf("no answer: got %v after %s", err, time.Since(began))
		}
	})
}

// TestStallEnds: a body that was closed is given up no more, and its request has ended.
func TestStallEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var req *http.Request
		resp, err := get(t, &source{}, func(r *http.Request) (*http.Response, error) {
			req = r
			return &http.Response{StatusCode: http.StatusPartialContent, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("all"))}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "all" {
			t.Fatalf("got %q, %v", b, err)
		}
		resp.Body.Close()
		if req.Context().Err() == nil {
			t.Error("the request goes on")
		}
	})
}

// TestWhole: a registry that sends all in place of a part is left alone. A small blob may well come as a whole.
func TestWhole(t *testing.T) {
	for _, tc := range []struct {
		name   string
		status int
		header []string
		bytes  int64
		whole  bool
	}{
		{"all of it", http.StatusOK, []string{"Range", "bytes=0-9"}, unit + 1, true},
		{"a small one", http.StatusOK, []string{"Range", "bytes=0-9"}, unit, false},
		{"a part", http.StatusPartialContent, []string{"Range", "bytes=0-9"}, unit + 1, false},
		{"what was asked for", http.StatusOK, nil, unit + 1, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &source{}
			resp, err := get(t, s, func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: tc.status, Header: http.Header{}, ContentLength: tc.bytes, Body: io.NopCloser(bytes.NewReader(nil))}, nil
			}, tc.header...)
			if err == nil {
				resp.Body.Close()
			}
			if errors.Is(err, errRanges) != tc.whole || errors.Is(s.unfit(), errRanges) != tc.whole {
				t.Errorf("got %v, unfit %v", err, s.unfit())
			}
			if err == nil && resp.Header.Get("Content-Type") == "" {
				t.Error("without a type, which the library asks for")
			}
		})
	}
}

// TestLink: large requests say how fast the link is, and the fastest one counts.
func TestLink(t *testing.T) {
	t.Setenv(variable, "")
	var l link
	l.note(measured-1, time.Nanosecond)
	if l.isFast() {
		t.Error("a small request counts")
	}
	l.note(fast-1, time.Second)
	if l.isFast() {
		t.Error("a slow link is fast")
	}
	l.note(fast, time.Second)
	l.note(measured, time.Minute)
	if !l.isFast() {
		t.Error("a fast link is not")
	}
	t.Setenv(variable, always)
	if l.isFast() {
		t.Errorf("it is in spite of %s", always)
	}
}
