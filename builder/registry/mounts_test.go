package registry

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestMounts(t *testing.T) {
	var asked []string
	answer := http.StatusCreated
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.RequestURI())
		if r.URL.Query().Has("mount") {
			w.WriteHeader(answer)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	defer srv.Close()
	const mount, upload = "POST /v2/a/blobs/uploads/?mount=sha256:1&from=b", "POST /v2/a/blobs/uploads/"
	for _, c := range []struct {
		request      string
		answer, want int
		asked        []string
	}{
		{mount, 201, 201, []string{mount}},
		{mount, 202, 202, []string{mount}},
		{mount, 401, 401, []string{mount}},
		{mount, 429, 429, []string{mount}},
		{mount, 403, 202, []string{mount, upload}},
		{mount, 404, 202, []string{mount, upload}},
		{mount, 405, 202, []string{mount, upload}},
		{"GET /v2/a?mount=1", 404, 404, []string{"GET /v2/a?mount=1"}},
	} {
		t.Run(c.request+" "+strconv.Itoa(c.answer), func(t *testing.T) {
			asked, answer = nil, c.answer
			method, path, _ := strings.Cut(c.request, " ")
			r, err := http.NewRequest(method, srv.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := (&mounts{http.DefaultTransport}).RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != c.want || !slices.Equal(asked, c.asked) {
				t.Errorf("got %d after %q, want %d after %q", resp.StatusCode, asked, c.want, c.asked)
			}
		})
	}
}
