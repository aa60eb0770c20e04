package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
)

func TestDownloads(t *testing.T) {
	var asked atomic.Int64
	var broken atomic.Bool
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		switch {
		case r.URL.Path == "/missing":
			http.NotFound(w, r)
		case broken.Load():
			http.Error(w, "later", http.StatusServiceUnavailable)
		default:
			_, _ = io.WriteString(w, "content of "+r.URL.Path)
		}
	}))
	defer origin.Close()
	proxy := httptest.NewServer(&downloads{dir: t.TempDir(), all: map[string]*download{}})
	defer proxy.Close()
	at, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(at)}}
	defer client.CloseIdleConnections()
	get := func(path, bytes string) (int, string) {
		r, err := http.NewRequest(http.MethodGet, origin.URL+path, nil)
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		if bytes != "" {
			r.Header.Set("Range", "bytes="+bytes)
		}
		answer, err := client.Do(r)
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		defer answer.Body.Close()
		b, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Error(err)
		}
		return answer.StatusCode, string(b)
	}
	want := func(path, bytes string, status int, text string, askedBefore int64) {
		t.Helper()
		gotStatus, got := get(path, bytes)
		if gotStatus != status || text != "" && got != text || asked.Load() != askedBefore {
			t.Errorf("%s: %d %q, %d requests; want %d %q, %d", path, gotStatus, got, asked.Load(), status, text, askedBefore)
		}
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { get("/a", "") })
	}
	all.Wait()
	want("/a", "", http.StatusOK, "content of /a", 1)
	want("/a", "11-", http.StatusPartialContent, "/a", 1)
	want("/missing", "", http.StatusNotFound, "", 2)
	want("/missing", "", http.StatusNotFound, "", 2)
	broken.Store(true)
	want("/b", "", http.StatusBadGateway, "", 3)
	broken.Store(false)
	want("/b", "", http.StatusOK, "content of /b", 4)
}

// TestMirror has a second mirror on the same directory, as a second bench has: what was found is there, what was not is asked for again.
func TestMirror(t *testing.T) {
	var asked atomic.Int64
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.URL.Path == "/base/missing" {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, "content of "+r.URL.RequestURI())
	}))
	defer origin.Close()
	dir := t.TempDir()
	for bench := range 2 {
		mirror := httptest.NewServer(&downloads{dir: dir, origin: origin.URL + "/base", all: map[string]*download{}})
		defer mirror.Close()
		get := func(path string) (int, string) {
			a, err := http.Get(mirror.URL + path)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Body.Close()
			b, err := io.ReadAll(a.Body)
			if err != nil {
				t.Fatal(err)
			}
			return a.StatusCode, string(b)
		}
		if status, text := get("/a?b=c"); status != http.StatusOK || text != "content of /base/a?b=c" {
			t.Errorf("bench %d: %d %q", bench, status, text)
		}
		if status, _ := get("/missing"); status == http.StatusOK {
			t.Errorf("bench %d: what is missing was found", bench)
		}
	}
	if got := asked.Load(); got != 3 {
		t.Errorf("the origin was asked %d times, want 3", got)
	}
}
