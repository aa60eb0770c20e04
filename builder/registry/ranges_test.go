package registry

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
)

func TestRanges(t *testing.T) {
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.Header.Get("Range"))
		if r.Header.Get("Range") != "" {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		io.WriteString(w, "whole")
	}))
	defer srv.Close()
	for _, c := range []struct {
		method, span, want string
		asked              []string
	}{
		{"GET", "bytes=3-", "200 whole", []string{"GET bytes=3-", "GET "}},
		{"GET", "bytes=0-1", "416 ", []string{"GET bytes=0-1"}}, // the caller wants that part and nothing else
		{"HEAD", "bytes=3-", "416 ", []string{"HEAD bytes=3-"}},
		{"GET", "", "200 whole", []string{"GET "}},
	} {
		asked = nil
		r, err := http.NewRequest(c.method, srv.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.span != "" {
			r.Header.Set("Range", c.span)
		}
		resp, err := (&ranges{http.DefaultTransport}).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if got := fmt.Sprintf("%d %s", resp.StatusCode, body); err != nil || got != c.want || !slices.Equal(asked, c.asked) {
			t.Errorf("%s %s: got %q after %q, want %q after %q", c.method, c.span, got, asked, c.want, c.asked)
		}
		if r.Header.Get("Range") != c.span {
			t.Error("the caller's request was changed")
		}
	}
}
