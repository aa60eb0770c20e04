package integration

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"
)

// withRanges answers requests for several parts of a blob at once, as registries do that people use. go-containerregistry's gives the first part only.
func withRanges(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || !strings.Contains(r.Header.Get("Range"), ",") {
			next.ServeHTTP(w, r)
			return
		}
		whole := r.Clone(r.Context())
		whole.Header.Del("Range")
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, whole)
		if answer.Code != http.StatusOK {
			w.WriteHeader(answer.Code)
			_, _ = w.Write(answer.Body.Bytes())
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(answer.Body.Bytes()))
	})
}
