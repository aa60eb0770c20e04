package actionstest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// signed is an address in the storage that may be used without a token.
func (s *Service) signed(n int) string { return s.URL + "storage" + s.blob(n) + "?sig=signed" }

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// refusals are the status of each reason.
var refusals = map[string]int{"already_exists": http.StatusConflict, "permission_denied": http.StatusForbidden}

// twirp answers in the second version of the protocol.
func (s *Service) twirp(w http.ResponseWriter, r *http.Request, method string, branches []Branch) {
	var in struct {
		Key         string   `json:"key"`
		RestoreKeys []string `json:"restore_keys"`
		Version     string   `json:"version"`
		SizeBytes   int64    `json:"size_bytes"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Key == "" || in.Version == "" {
		answer(w, http.StatusBadRequest, map[string]any{"code": "malformed", "msg": "no key or version"})
		return
	}
	switch method {
	case "CreateCacheEntry":
		n, refused := s.reserve(branches, in.Key, in.Version)
		if n < 0 {
			answer(w, refusals[refused], map[string]any{"code": refused, "msg": "cache entry: " + refused})
			return
		}
		answer(w, http.StatusOK, map[string]any{"ok": true, "signed_upload_url": s.signed(n)})
	case "FinalizeCacheEntryUpload":
		for n, e := range s.entries {
			if e.key == in.Key && e.version == in.Version && !e.complete && s.blobs.size(s.blob(n)) == in.SizeBytes {
				e.complete = true
				answer(w, http.StatusOK, map[string]any{"ok": true, "entry_id": strconv.Itoa(n + 1)})
				return
			}
		}
		answer(w, http.StatusNotFound, map[string]any{"code": "not_found", "msg": "nothing of this size was uploaded"})
	case "GetCacheEntryDownloadURL":
		n := s.find(branches, append([]string{in.Key}, in.RestoreKeys...), in.Version)
		if n < 0 {
			answer(w, http.StatusOK, map[string]any{"ok": false})
			return
		}
		answer(w, http.StatusOK, map[string]any{"ok": true, "signed_download_url": s.signed(n), "matched_key": s.entries[n].key})
	default:
		answer(w, http.StatusNotFound, map[string]any{"code": "bad_route", "msg": method})
	}
}

// first answers in the first version of the protocol, in which parts of blobs are sent to the service itself.
func (s *Service) first(w http.ResponseWriter, r *http.Request, branches []Branch) {
	name := strings.TrimPrefix(r.URL.Path, "/_apis/artifactcache/")
	switch {
	case r.Method == http.MethodGet && name == "cache":
		q := r.URL.Query()
		n := s.find(branches, strings.Split(q.Get("keys"), ","), q.Get("version"))
		if n < 0 {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		answer(w, http.StatusOK, map[string]any{"cacheKey": s.entries[n].key, "scope": s.entries[n].branch, "archiveLocation": s.signed(n)})
	case r.Method == http.MethodPost && name == "caches":
		var in struct{ Key, Version string }
		json.NewDecoder(r.Body).Decode(&in)
		n, refused := s.reserve(branches, in.Key, in.Version)
		if n < 0 {
			answer(w, refusals[refused], map[string]any{"message": "cache entry: " + refused, "typeKey": map[bool]string{true: "ArtifactCacheItemAlreadyExistsException"}[refused == "already_exists"]})
			return
		}
		answer(w, http.StatusCreated, map[string]any{"cacheId": n + 1})
	default:
		id, err := strconv.Atoi(strings.TrimPrefix(name, "caches/"))
		if err != nil || id < 1 || id > len(s.entries) || s.entries[id-1].complete {
			http.NotFound(w, r)
			return
		}
		if r.Method == http.MethodPatch {
			var from, to int64
			b, err := io.ReadAll(r.Body)
			if _, err2 := fmt.Sscanf(r.Header.Get("Content-Range"), "bytes %d-%d/*", &from, &to); err != nil || err2 != nil || to-from+1 != int64(len(b)) {
				http.Error(w, `{"message":"the range is wrong"}`, http.StatusBadRequest)
				return
			}
			s.blobs.part(s.blob(id-1), from, b)
			w.WriteHeader(http.StatusNoContent)
			return
		}
		var in struct{ Size int64 }
		if json.NewDecoder(r.Body).Decode(&in); in.Size != s.blobs.size(s.blob(id-1)) {
			http.Error(w, `{"message":"nothing of this size was uploaded"}`, http.StatusBadRequest)
			return
		}
		s.entries[id-1].complete = true
		w.WriteHeader(http.StatusNoContent)
	}
}
