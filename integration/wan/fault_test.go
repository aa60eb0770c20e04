package wan

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// blob is what the tests' registry has at every path.
var blob = bytes.Repeat([]byte("0123456789abcdef"), 1<<16)

// faulty is a server with rules, and a client of it that keeps no connections.
func faulty(t *testing.T, rules ...string) (*Registry, *http.Client) {
	t.Helper()
	r, err := Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusAccepted)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(blob)))
		_, _ = w.Write(blob)
	}), Profile{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	for _, text := range rules {
		rule, err := ParseRule(strings.Split(text, "|"))
		if err != nil {
			t.Fatal(err)
		}
		r.Add(rule)
	}
	return r, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
}

// outcome is what came of a request: the status, how many bytes of the right ones came, and how it ended.
func outcome(c *http.Client, method, url string, body io.Reader) string {
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return err.Error()
	}
	resp, err := c.Do(req)
	if err != nil {
		return ending(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	out := resp.Status[:3]
	if resp.StatusCode == http.StatusOK && method == http.MethodGet {
		same := 0
		for same < len(got) && got[same] == blob[same] {
			same++
		}
		out += fmt.Sprintf(" %d of %d bytes", same, len(got))
	}
	return out + ending(err)
}

func ending(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return " reset"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return " ended"
	}
	return " " + err.Error()
}

func TestFaults(t *testing.T) {
	whole := fmt.Sprintf("200 %d of %[1]d bytes", len(blob))
	// The kernel takes back what a client has not read when a reset comes.
	const atMost100000 = `200 (\d{1,5}|100000) of (\d{1,5}|100000) bytes reset`
	for _, c := range []struct{ rule, method, want string }{
		{"GET /other|reset", "GET", whole},
		{"GET|status|code=503", "GET", "503"},
		{"GET|status|code=429|retry-after=7|message=too much", "GET", "429"},
		{"GET|reset", "GET", " reset"},
		{"GET|reset|after=100000", "GET", atMost100000},
		{"POST|reset|after=100000", "POST", " .*"},
		{"POST|status|code=413", "POST", "413"},
		{"POST|expire", "POST", "401"},
		{"GET|truncate|after=100000", "GET", "200 100000 of 100000 bytes ended"},
		{"GET|truncate", "GET", "200 0 of 0 bytes ended"},
		{"GET|short|after=100000", "GET", "200 100000 of 100000 bytes"},
		{"GET|trickle|after=1000|every=1h|for=1ms", "GET", `200 (\d{1,3}|1000) of (\d{1,3}|1000) bytes reset`},
		{"GET|trickle|after=1048570|every=1us|for=1h", "GET", whole},
		{"GET|corrupt", "GET", fmt.Sprintf("200 0 of %d bytes", len(blob))},
		{"GET|corrupt|at=100001", "GET", fmt.Sprintf("200 100001 of %d bytes", len(blob))},
		{"GET|delay|for=1ns", "GET", whole},
	} {
		t.Run(c.rule, func(t *testing.T) {
			r, client := faulty(t, c.rule)
			var body io.Reader
			if c.method == http.MethodPost {
				body = bytes.NewReader(blob)
			}
			got := outcome(client, c.method, "http://"+r.Addr+"/v2/x", body)
			if !regexp.MustCompile("^(?:" + c.want + ")$").MatchString(got) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// The n-th request always meets the same.
func TestRuleCounts(t *testing.T) {
	want := "200 500 500 200 503 200 "
	for range 3 {
		r, client := faulty(t, "GET|status|code=500|skip=1|times=2", "GET /v2/x|status|code=503|skip=4|times=1")
		got := ""
		for range 6 {
			got += outcome(client, "GET", "http://"+r.Addr+"/v2/x", nil)[:3] + " "
		}
		if got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
		if n := r.Counts().Faults; n != 3 {
			t.Errorf("counted %d faults, want 3", n)
		}
	}
}

// An answer that comes before all was sent is heard.
func TestEarlyAnswer(t *testing.T) {
	r, err := Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	}), Profile{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c, err := net.Dial("tcp", r.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// It looks for an answer when all is sent, more than fits on the way.
	body := bytes.Repeat(blob, 32)
	if _, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, len("HTTP/1.1 413"))
	if _, err := io.ReadFull(c, answer); string(answer) != "HTTP/1.1 413" {
		t.Errorf("got %q, %v", answer, err)
	}
}

func TestRetryAfter(t *testing.T) {
	r, client := faulty(t, "GET|status|code=429|retry-after=7|message=slow down")
	resp, err := client.Get("http://" + r.Addr + "/v2/x")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.Header.Get("Retry-After") != "7" || !strings.Contains(string(body), `{"code":"TOOMANYREQUESTS","message":"slow down"}`) {
		t.Errorf("got %v %s", resp.Header, body)
	}
}

// A token holds until the next one has to be fetched.
func TestExpire(t *testing.T) {
	r, client := faulty(t, "GET /v2/|expire|skip=1|times=1", "GET /v2/|expire|skip=3|times=1")
	log, token := "", ""
	for range 4 {
		req, _ := http.NewRequest("GET", "http://"+r.Addr+"/v2/app/manifests/1", nil)
		if token != "" {
			req.Header.Set("Authorization", token)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		log += resp.Status[:3] + " "
		if resp.StatusCode != http.StatusUnauthorized {
			continue
		}
		want := fmt.Sprintf(`Bearer realm="http://%s/token",service="test",scope="repository:app:pull,push"`, r.Addr)
		if token != "" {
			want += `,error="invalid_token"`
		}
		if got := resp.Header.Get("WWW-Authenticate"); got != want {
			t.Errorf("challenge %s, want %s", got, want)
		}
		resp, err = client.Get("http://" + r.Addr + "/token")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		_, rest, _ := strings.Cut(string(body), `{"token":"`)
		token, _, _ = strings.Cut(rest, `"`)
		token = "Bearer " + token
	}
	if log != "200 401 200 401 " {
		t.Errorf("got %s", log)
	}
	if got := outcome(client, "GET", "http://"+r.Addr+"/v2/x", nil); got != "401" {
		t.Errorf("without a token: %s", got)
	}
	r.Clear()
	if got := outcome(client, "GET", "http://"+r.Addr+"/v2/x", nil); got[:3] != "200" {
		t.Errorf("after Clear: %s", got)
	}
}

func TestParse(t *testing.T) {
	for _, bad := range []string{"GET", "GET|explode", "GET|reset|for=1s", "GET|reset|after", "GET|reset|after=-1", "GET|delay|for=long", "(|reset"} {
		if r, err := ParseRule(strings.Split(bad, "|")); err == nil {
			t.Errorf("%q was read as %+v", bad, r)
		}
	}
	if p, err := ParseProfile("100mbit", "20ms"); p != Runner || err != nil {
		t.Errorf("got %+v, %v", p, err)
	}
	for _, bad := range []string{"100", "mbit", "-1mbit", "1.5gbit"} {
		if p, err := ParseProfile(bad, "20ms"); err == nil {
			t.Errorf("%q was read as %+v", bad, p)
		}
	}
}
