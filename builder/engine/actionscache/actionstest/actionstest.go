// Package actionstest is the cache service of GitHub Actions in memory, for tests: both versions of its protocol, behind which blobs are uploaded to and read from Azure's blob
// storage with signed addresses.
//
// It is as strict as the real one where caches could go wrong: an entry can't be written twice, nobody sees one that is not complete, and a token shows the branches that it lists and
// no others, whatever the key.
package actionstest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Permissions of a branch in a token.
const (
	Read  = 1
	Write = 2
)

// Branch is what a token says of one branch.
type Branch struct {
	Scope      string // "refs/heads/main"
	Permission int
}

// Token makes a job's token. Nobody checks its signature.
func Token(branches ...Branch) string { return token(time.Now(), branches) }

// Expired makes the token of a job that took too long.
func Expired(branches ...Branch) string { return token(time.Now().Add(-24*time.Hour), branches) }

func token(now time.Time, branches []Branch) string {
	ac, _ := json.Marshal(branches)
	claims, _ := json.Marshal(map[string]any{"ac": string(ac), "nbf": now.Add(-time.Hour).Unix(), "exp": now.Add(time.Hour).Unix()})
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + part(claims) + "." + part([]byte("signature"))
}

// Service is one service. The zero value is empty. It may be called concurrently.
type Service struct {
	// URL is where the service is reached, with a slash in the end. Set it before the first request.
	URL string

	mu      sync.Mutex
	blobs   Blobs
	entries []*entry // in the order in which they were reserved
	asked   map[string]int
}

// entry is one reserved key of a branch.
type entry struct {
	branch, key, version string
	complete             bool
}

// blob is the address of what an entry holds, in the storage.
func (s *Service) blob(n int) string { return fmt.Sprintf("/actions/%d", n+1) }

func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if storage, ok := strings.CutPrefix(r.URL.Path, "/storage"); ok {
		if r.URL.Query().Get("sig") != "signed" {
			http.Error(w, "AuthenticationFailed", http.StatusForbidden)
			return
		}
		inner := r.Clone(r.Context())
		inner.URL.Path = storage
		s.blobs.ServeHTTP(w, inner)
		return
	}
	branches, ok := branchesOf(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	if !ok {
		http.Error(w, `{"code":"unauthenticated","msg":"no token"}`, http.StatusUnauthorized)
		return
	}
	method := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	if s.asked == nil {
		s.asked = map[string]int{}
	}
	s.asked[method]++
	switch prefix := "/twirp/github.actions.results.api.v1.CacheService/"; {
	case r.Method == http.MethodPost && r.URL.Path == prefix+method:
		s.twirp(w, r, method, branches)
	case strings.HasPrefix(r.URL.Path, "/_apis/artifactcache/"):
		s.first(w, r, branches)
	default:
		http.NotFound(w, r)
	}
}

func branchesOf(token string) (list []Branch, ok bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, false
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct{ AC string }
	if err != nil || json.Unmarshal(b, &claims) != nil || json.Unmarshal([]byte(claims.AC), &list) != nil {
		return nil, false
	}
	return list, true
}

// find looks in the branches in their order, first for a key and then for the newest that begins with it; -1 if there is none.
func (s *Service) find(branches []Branch, keys []string, version string) int {
	for _, b := range branches {
		for _, key := range keys {
			best := -1
			for n, e := range s.entries {
				if e.complete && e.branch == b.Scope && e.version == version && b.Permission&Read != 0 && strings.HasPrefix(e.key, key) {
					if best = n; e.key == key {
						return n
					}
				}
			}
			if best >= 0 {
				return best
			}
		}
	}
	return -1
}

// reserve takes a key in the branch that may be written to; -1, with the reason, if that can't be.
func (s *Service) reserve(branches []Branch, key, version string) (n int, refused string) {
	for _, b := range branches {
		if b.Permission&Write == 0 {
			continue
		}
		for _, e := range s.entries {
			if e.branch == b.Scope && e.key == key && e.version == version {
				return -1, "already_exists"
			}
		}
		s.entries = append(s.entries, &entry{branch: b.Scope, key: key, version: version})
		return len(s.entries) - 1, ""
	}
	return -1, "permission_denied"
}

// Asked is how often a method was called: the last part of its address.
func (s *Service) Asked(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[method]
}

// Keys are the keys of complete entries that match, in the order in which they were reserved.
func (s *Service) Keys(match *regexp.Regexp) (keys []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		if e.complete && match.MatchString(e.key) {
			keys = append(keys, e.key)
		}
	}
	return keys
}

// Evict makes entries whose keys match disappear, as the service does with old ones, and returns how many they were.
func (s *Service) Evict(match *regexp.Regexp) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		if e.complete && match.MatchString(e.key) {
			e.complete, e.key, n = false, "", n+1
		}
	}
	return n
}

// Change replaces what entries whose keys match hold, and returns how many they were.
func (s *Service) Change(match *regexp.Regexp, change func([]byte) []byte) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, e := range s.entries {
		if e.complete && match.MatchString(e.key) {
			s.blobs.change(s.blob(i), change)
			n++
		}
	}
	return n
}

// Reserve takes a key and leaves it incomplete, as a job does that dies while it uploads.
func (s *Service) Reserve(branch, key, version string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries = append(s.entries, &entry{branch: branch, key: key, version: version})
}

// Version is that of the first entry: clients have one for all.
func (s *Service) Version() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.entries) == 0 {
		return ""
	}
	return s.entries[0].version
}
