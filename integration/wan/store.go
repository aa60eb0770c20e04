package wan

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Store is a registry that keeps its blobs in a directory. It may be used concurrently.
//
// It rests on go-containerregistry's, and is stricter and more able, as registries that people use are: a blob is found in the repositories that it was pushed
// to or mounted into and in no other; manifests whose blobs are not there are refused; blobs are mounted across repositories; any range can be
// asked for, several at once, and open ones. Bodies are read before anything is locked: one slow upload does not hold up others.
type Store struct {
	dir  string
	next http.Handler

	mu  sync.Mutex
	has map[string]map[string]bool // digests by repository
}

// NewStore returns an empty registry. The directory has to exist.
func NewStore(dir string) *Store {
	s := &Store{dir: dir, has: map[string]map[string]bool{}}
	s.next = registry.New(registry.WithBlobHandler(s), registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0)))
	return s
}

func (s *Store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if m := blobPath.FindStringSubmatch(r.URL.Path); m != nil && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		s.serveBlob(w, r, m[1], m[2])
		return
	}
	if m := uploadPath.FindStringSubmatch(r.URL.Path); m != nil && r.Method == http.MethodPost {
		if digest := r.URL.Query().Get("mount"); digest != "" && s.Has(r.URL.Query().Get("from"), digest) {
			s.add(m[1], digest)
			w.Header().Set("Location", "/v2/"+m[1]+"/blobs/"+digest)
			w.Header().Set("Docker-Content-Digest", digest)
			w.WriteHeader(http.StatusCreated)
			return
		}
	}
	if pushes(r) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			writeError(w, http.StatusBadRequest, "BLOB_UPLOAD_INVALID", err.Error())
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if m := manifestPath.FindStringSubmatch(r.URL.Path); m != nil {
			if missing := s.missing(m[1], body); missing != "" {
				writeError(w, http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", "the repository has no blob "+missing)
				return
			}
		}
	}
	s.next.ServeHTTP(w, r)
}

func (s *Store) serveBlob(w http.ResponseWriter, r *http.Request, repo, digest string) {
	if !s.Has(repo, digest) {
		writeError(w, http.StatusNotFound, "BLOB_UNKNOWN", "the repository has no blob "+digest)
		return
	}
	f, err := os.Open(s.path(digest))
	if err != nil {
		writeError(w, http.StatusInternalServerError, "UNKNOWN", err.Error())
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", digest)
	http.ServeContent(w, r, "", time.Time{}, f)
}

// missing returns a blob that a manifest names and its repository has not; "" for none. Manifests of other kinds have none.
func (s *Store) missing(repo string, manifest []byte) string {
	var m v1.Manifest
	if json.Unmarshal(manifest, &m) != nil || m.Config.Digest.Hex == "" {
		return ""
	}
	for _, d := range append(m.Layers, m.Config) {
		if digest := d.Digest.String(); len(d.URLs) == 0 && !s.Has(repo, digest) {
			return digest
		}
	}
	return ""
}

// Has tells whether a repository has a blob.
func (s *Store) Has(repo, digest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.has[repo][digest]
}

func (s *Store) add(repo, digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.has[repo] == nil {
		s.has[repo] = map[string]bool{}
	}
	s.has[repo][digest] = true
}

func (s *Store) path(digest string) string {
	return filepath.Join(s.dir, strings.ReplaceAll(digest, ":", "-"))
}

// Get is there because go-containerregistry's registry wants it, which is never asked for blobs.
func (s *Store) Get(_ context.Context, _ string, h v1.Hash) (io.ReadCloser, error) {
	return os.Open(s.path(h.String()))
}

// Put keeps a blob, whose digest the reader checks. The repository of an upload comes with "/blobs" behind it.
func (s *Store) Put(_ context.Context, repo string, h v1.Hash, r io.ReadCloser) error {
	defer r.Close()
	f, err := os.CreateTemp(s.dir, "upload-*")
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), s.path(h.String()))
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	s.add(strings.TrimSuffix(repo, "/blobs"), h.String())
	return nil
}
