package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/optbuild/optbuild/integration/bases"
)

// downloads is an HTTP proxy that fetches everything once, so that of several builds that download the same packages each has them from
// this machine. It is for apt, whose mirrors speak plain HTTP. It forgets when the bench ends: what was fetched does not go stale.
//
// With an origin it is no proxy, but a mirror of that server, for npm and go, which are told where to ask. What it has it keeps for the next bench: archives
// of one version do not change.
type downloads struct {
	dir    string
	origin string // https://host/path, without a slash at its end
	mu     sync.Mutex
	all    map[string]*download // by URL
}

// download is an answer that was, or is being, fetched.
type download struct {
	ready    chan struct{}
	err      error
	status   int
	header   http.Header
	modified time.Time
	path     string
	keep     bool // what is at path may be from an earlier bench, and stays for a later one
}

func (d *downloads) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	url := d.origin + r.URL.RequestURI()
	if d.origin == "" {
		url = r.URL.String()
		if r.URL.Scheme != "http" {
			http.Error(w, "this proxy is for GET http://...", http.StatusMethodNotAllowed)
			return
		}
	}
	if r.Method != http.MethodGet {
		http.Error(w, "only GET is served", http.StatusMethodNotAllowed)
		return
	}
	d.mu.Lock()
	a, ok := d.all[url]
	if !ok {
		a = &download{ready: make(chan struct{}), path: filepath.Join(d.dir, fmt.Sprintf("%x", sha256.Sum256([]byte(url)))), keep: d.origin != ""}
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
	if _, err := os.Stat(a.path); a.keep && err == nil {
		a.status, a.header = http.StatusOK, http.Header{}
		return nil
	}
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
	to := a.path
	if a.keep { // only what is whole, and was found, gets the name by which it is found again
		to += ".part"
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, answer.Body); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil || !a.keep {
		return err
	}
	if a.status != http.StatusOK {
		a.path = to
		return nil
	}
	return os.Rename(to, a.path)
}

// proxy starts downloads and returns its address.
func (b *bench) proxy() (string, error) {
	if b.downloads != "" {
		return b.downloads, nil
	}
	var err error
	b.downloads, err = b.offerDownloads(filepath.Join(b.Dir, "downloads"), "")
	return b.downloads, err
}

// mirrorOf starts a mirror of a server and returns its address. What it fetches is kept in the cache directory, by a name.
func (b *bench) mirrorOf(name, origin string) (string, error) {
	cache, err := bases.CacheDir()
	if err != nil {
		return "", err
	}
	return b.offerDownloads(filepath.Join(cache, "bench-downloads", name), strings.TrimSuffix(origin, "/"))
}

func (b *bench) offerDownloads(dir, origin string) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s := &http.Server{Handler: &downloads{dir: dir, origin: origin, all: map[string]*download{}}}
	go s.Serve(ln)
	b.undo = append(b.undo, func() { s.Close() })
	return "http://" + ln.Addr().String(), nil
}
