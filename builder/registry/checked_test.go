package registry

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
)

// However it comes and is read, a body with the digest arrives, and of another one neither the last byte nor the end.
func TestCheckedBody(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for size := range 70 {
		content := make([]byte, size*size)
		for i := range content {
			content[i] = byte(r.Uint32())
		}
		for name, shape := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader, "halves": iotest.HalfReader, "error with data": iotest.DataErrReader,
		} {
			for _, d := range []digest.Digest{digest.FromBytes(content), digest.FromString("another")} {
				body := &checkedBody{ReadCloser: io.NopCloser(shape(bytes.NewReader(content))), digest: d, hash: d.Algorithm().Hash()}
				var got []byte
				buffer := make([]byte, 1+r.IntN(100))
				var err error
				for err == nil {
					var n int
					n, err = body.Read(buffer)
					got = append(got, buffer[:n]...)
				}
				if right := d == digest.FromBytes(content); right && (err != io.EOF || !bytes.Equal(got, content)) {
					t.Fatalf("%d bytes, %s: got %d, %v", len(content), name, len(got), err)
				} else if !right && (!errors.Is(err, ErrDigest) || len(got) > max(0, len(content)-1) || !bytes.HasPrefix(content, got)) {
					t.Fatalf("%d bytes of something else, %s: got %d, %v", len(content), name, len(got), err)
				}
			}
		}
	}
}

// The digest is that of the first address, also behind a redirection; a tag says nothing, and part of a blob can't be compared.
func TestCheckedRequests(t *testing.T) {
	right, wrong := "right", "wrong"
	d := digest.FromString(right)
	mux := http.NewServeMux()
	serve := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
		}
	}
	mux.Handle("/v2/a/blobs/"+d.String(), serve(right))
	mux.Handle("/v2/b/blobs/"+d.String(), serve(wrong))
	mux.Handle("/v2/c/blobs/"+d.String(), http.RedirectHandler("/store/x", http.StatusTemporaryRedirect))
	mux.Handle("/v2/d/blobs/"+d.String(), http.RedirectHandler("/store/y", http.StatusTemporaryRedirect))
	mux.Handle("/store/x", serve(right))
	mux.Handle("/store/y", serve(wrong))
	mux.Handle("/v2/a/manifests/latest", serve(wrong))
	mux.Handle("/v2/a/referrers/"+d.String(), serve(wrong)) // what refers to it
	mux.Handle("/v2/a/manifests/"+d.String(), serve(wrong))
	server := httptest.NewServer(mux)
	defer server.Close()
	client := &http.Client{Transport: newChecked(http.DefaultTransport)}
	for path, fine := range map[string]bool{
		"/v2/a/blobs/" + d.String(): true, "/v2/b/blobs/" + d.String(): false, "/v2/c/blobs/" + d.String(): true, "/v2/d/blobs/" + d.String(): false,
		"/v2/a/referrers/" + d.String(): true, "/v2/a/manifests/latest": true, "/v2/a/manifests/" + d.String(): false,
	} {
		for _, part := range []bool{false, true} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if part {
				req.Header.Set("Range", "bytes=1-")
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
			if (err == nil) != (fine || part) {
				t.Errorf("%s, in part %t: %v", path, part, err)
			}
		}
	}
}

// A body that brings a byte a second is too slow, and one that brings nothing more; one that takes long, but goes on, is not, nor is one whose reader takes his time.
func TestSteady(t *testing.T) {
	for name, test := range map[string]struct {
		every  time.Duration
		bytes  int
		reader time.Duration // that he takes for each piece
		fine   bool
	}{
		"a byte a second": {time.Second, 1, 0, false}, "nothing": {time.Hour, 1 << 20, 0, false}, "slow, but steady": {10 * time.Second, 8 << 10, 0, true},
		"a slow reader": {0, 1 << 10, time.Minute, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				out, in := io.Pipe()
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					for range 100 {
						time.Sleep(test.every)
						if _, err := in.Write(make([]byte, test.bytes)); err != nil {
							return
						}
					}
					in.Close()
				}()
				body := newSteady(out, slowPeriod, slowLeast)
				time.Sleep(test.reader) // in the bubble
				var err error
				for piece := make([]byte, 1<<10); err == nil; time.Sleep(test.reader) {
					_, err = body.Read(piece)
				}
				if err == io.EOF {
					err = nil
				}
				body.Close()
				if (err == nil) != test.fine || err != nil && !strings.Contains(err.Error(), "too slowly") {
					t.Error(err)
				}
				out.Close()
				<-ended
			})
		})
	}
}
