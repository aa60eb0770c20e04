package registry

import (
	"net/http"
	"strings"
)

// ranges asks for the whole of a blob when a registry refuses to give the rest of it (416). A pull that was interrupted is
// resumed with an open range, "bytes=N-", which some registries do not know (go-containerregistry's is one): without this
// every later pull of that blob would fail. The caller skips what it has.
type ranges struct{ next http.RoundTripper }

func (t *ranges) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusRequestedRangeNotSatisfiable || r.Method != http.MethodGet ||
		!strings.HasSuffix(r.Header.Get("Range"), "-") {
		return resp, err
	}
	resp.Body.Close()
	r = r.Clone(r.Context())
	r.Header.Del("Range")
	return t.next.RoundTrip(r)
}
