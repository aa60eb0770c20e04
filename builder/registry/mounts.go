package registry

import "net/http"

// mounts asks for an ordinary upload where a registry refuses to take a blob from another repository. By the specification it would answer with one by itself; some that do not know
// the request, or do not let the user read there, answer with an error, which containerd takes for that of the push.
type mounts struct{ next http.RoundTripper }

func (t *mounts) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	q := r.URL.Query()
	if err != nil || r.Method != http.MethodPost || !q.Has("mount") {
		return resp, err
	}
	switch resp.StatusCode {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
	default: // 401 is for the client: with another token it may succeed
		return resp, nil
	}
	resp.Body.Close()
	r = r.Clone(r.Context())
	q.Del("mount")
	q.Del("from")
	r.URL.RawQuery = q.Encode()
	return t.next.RoundTrip(r)
}
