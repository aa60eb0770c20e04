package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// downloads is an HTTP proxy that fetches everything once, so that of several builds that download the same packages each has them from
// this machine. It is for apt, whose mirrors speak plain HTTP. It forgets when the bench ends: what was fetched does not go stale.
type downloads struct {
	dir string
	mu  sync.Mutex
	all map[string]*download // by URL
}

// download is an answer that was, or is being, fetched.
type download struct {
	ready    chan struct{}
	err      error
	status   int
	header   http.Header
	modified time.Time
	path     string
}

func (d *downloads) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet || r.URL.Scheme != "http" {
		http.Error(w, "this proxy is for GET http://...", http.StatusMethodNotAllowed)
		return
	}
	url := r.URL.String()
	d.mu.Lock()
	a, ok := d.all[url]
	if !ok {
		a = &download{ready: make(chan struct{}), path: filepath.Join(d.dir, fmt.Sprint(len(d.all)))}
		d.all[url] = a
	}
	d.mu.Unlock()
	if !ok {
		a.err = a.fetch(url)
		if a.err != nil { // the next one may have more luck
			d.mu.Lock()
			delete(d.all, url)
			d.mu.Unlock()
		}
		close(a.ready)
	}
	select {
	case <-a.ready:
	case <-r.Context().Done():
		return
	}
	if a.err != nil {
		http.Error(w, a.err.Error(), http.StatusBadGateway)
		return
	}
	f, err := os.Open(a.path)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer f.Close()
	for _, name := range []string{"Content-Type", "Last-Modified", "Etag"} {
		if v := a.header.Get(name); v != "" {
			w.Header().Set(name, v)
		}
	}
	if a.status == http.StatusOK {
		http.ServeContent(w, r, "", a.modified, f)
		return
	}
	w.WriteHeader(a.status)
	_, _ = io.Copy(w, f)
}

// fetch does not end with the request that it is for: others may wait for it.
func (a *download) fetch(url string) error {
	client := http.Client{Timeout: 5 * time.Minute}
	answer, err := client.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 500 {
		return fmt.Errorf("get %s: %s", url, answer.Status)
	}
	a.status, a.header = answer.StatusCode, answer.Header
	a.modified, _ = http.ParseTime(answer.Header.Get("Last-Modified"))
	f, err := os.Create(a.path)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, answer.Body); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// proxy starts downloads and returns its address.
func (b *bench) proxy() (string, error) {
	if b.downloads != "" {
		return b.downloads, nil
	}
	d := &downloads{dir: filepath.Join(b.Dir, "downloads"), all: map[string]*download{}}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return "", err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s := &http.Server{Handler: d}
	go s.Serve(ln)
	b.undo = append(b.undo, func() { s.Close() })
	b.downloads = "http://" + ln.Addr().String()
	return b.downloads, nil
}
