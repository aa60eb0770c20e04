package actionstest

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Blobs is Azure's blob storage, as far as block blobs need it: containers are made and asked for, blobs put whole or in blocks, and read from anywhere on. The zero value is
// empty. It may be called concurrently.
type Blobs struct {
	mu         sync.Mutex
	containers map[string]bool
	blobs      map[string][]byte            // by path
	blocks     map[string]map[string][]byte // by path and id, until a list of them makes a blob
}

func (b *Blobs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w.Header().Set("x-ms-request-id", "1")
	w.Header().Set("x-ms-version", r.Header.Get("x-ms-version"))
	q := r.URL.Query()
	switch path := r.URL.Path; {
	case q.Get("restype") == "container":
		b.container(w, r, path)
	case r.Method == http.MethodPut:
		b.put(w, r, path, q.Get("comp"), q.Get("blockid"))
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		data, ok := b.blobs[path]
		if !ok {
			refuse(w, http.StatusNotFound, "BlobNotFound")
			return
		}
		if v := r.Header.Get("x-ms-range"); v != "" {
			r.Header.Set("Range", v)
		}
		w.Header().Set("ETag", `"1"`)
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	default:
		refuse(w, http.StatusMethodNotAllowed, "UnsupportedHttpVerb")
	}
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("x-ms-error-code", code)
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code></Error>", code)
}

func (b *Blobs) container(w http.ResponseWriter, r *http.Request, name string) {
	switch {
	case r.Method == http.MethodPut && b.containers[name]:
		refuse(w, http.StatusConflict, "ContainerAlreadyExists")
	case r.Method == http.MethodPut:
		if b.containers == nil {
			b.containers = map[string]bool{}
		}
		b.containers[name] = true
		w.WriteHeader(http.StatusCreated)
	case !b.containers[name]:
		refuse(w, http.StatusNotFound, "ContainerNotFound")
	}
}

func (b *Blobs) put(w http.ResponseWriter, r *http.Request, path, comp, id string) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		refuse(w, http.StatusBadRequest, "IncompleteBody")
		return
	}
	if b.blobs == nil {
		b.blobs, b.blocks = map[string][]byte{}, map[string]map[string][]byte{}
	}
	if _, ok := b.blobs[path]; ok && r.Header.Get("If-None-Match") == "*" && comp != "block" {
		refuse(w, http.StatusConflict, "BlobAlreadyExists")
		return
	}
	switch comp {
	case "block":
		if b.blocks[path] == nil {
			b.blocks[path] = map[string][]byte{}
		}
		b.blocks[path][id] = body
	case "blocklist":
		var list struct {
			Latest []string
		}
		if err := xml.Unmarshal(body, &list); err != nil {
			refuse(w, http.StatusBadRequest, "InvalidXmlDocument")
			return
		}
		var all []byte
		for _, id := range list.Latest {
			part, ok := b.blocks[path][strings.TrimSpace(id)]
			if !ok {
				refuse(w, http.StatusBadRequest, "InvalidBlockList")
				return
			}
			all = append(all, part...)
		}
		b.blobs[path] = all
		delete(b.blocks, path)
	default:
		if r.Header.Get("x-ms-blob-type") != "BlockBlob" {
			refuse(w, http.StatusBadRequest, "InvalidHeaderValue")
			return
		}
		b.blobs[path] = body
	}
	w.Header().Set("ETag", `"1"`)
	w.WriteHeader(http.StatusCreated)
}

// Paths are those of all blobs.
func (b *Blobs) Paths() (paths []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for path := range b.blobs {
		paths = append(paths, path)
	}
	return paths
}

// size is a blob's; -1 if there is none.
func (b *Blobs) size(path string) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	data, ok := b.blobs[path]
	if !ok {
		return -1
	}
	return int64(len(data))
}

func (b *Blobs) change(path string, change func([]byte) []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.blobs[path] = change(bytes.Clone(b.blobs[path]))
}

// part writes a part of a blob.
func (b *Blobs) part(path string, from int64, data []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.blobs == nil {
		b.blobs, b.blocks = map[string][]byte{}, map[string]map[string][]byte{}
	}
	all := b.blobs[path]
	if missing := from + int64(len(data)) - int64(len(all)); missing > 0 {
		all = append(all, make([]byte, missing)...)
	}
	copy(all[from:], data)
	b.blobs[path] = all
}
