package store_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/containerd/platforms"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/client"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/store"
)

// other is a platform that the host is not and can't run as a variant of its own.
var other = ocispecs.Platform{OS: "linux", Architecture: "s390x"}

func host() string { return platforms.Format(platforms.DefaultSpec()) }

func TestWholeIndexRoundTrip(t *testing.T) {
	t.Parallel()
	from, to := newRegistry(t, nil), newRegistry(t, nil)
	index := newIndex(t, host(), "linux/s390x")
	upload(t, from+"/app:1", index)

	var last client.Vertex
	s := newStore(t, store.Options{Status: func(st *client.SolveStatus) {
		for _, v := range st.Vertexes {
			last = *v
		}
	}})
	pulled, err := s.Pull(t.Context(), from+"/app:1", store.PullOptions{AllPlatforms: true})
	ok(t, err)
	equal(t, "pulled", fmt.Sprint(pulled), fmt.Sprint(store.Pulled{Name: from + "/app:1", Digest: pulled.Digest}))
	equal(t, "digest", pulled.Digest.String(), digestOf(t, index))
	if last.Completed == nil || last.Error != "" || last.Name != "pulling "+from+"/app:1" {
		t.Errorf("last reported vertex: %+v", last)
	}
	pulled, err = s.Pull(t.Context(), from+"/app:1", store.PullOptions{AllPlatforms: true})
	ok(t, err)
	if !pulled.UpToDate {
		t.Error("second pull is not up to date")
	}

	ok(t, s.Tag(t.Context(), from+"/app:1", to+"/copy/app:2"))
	pushed, err := s.Push(t.Context(), to+"/copy/app:2", store.PushOptions{})
	ok(t, err)
	equal(t, "pushed", fmt.Sprint(pushed.Tag, " ", pushed.Target.Digest, " ", pushed.Part), "2 "+digestOf(t, index)+" ")
	equal(t, "index", rawManifest(t, to+"/copy/app:2"), rawManifest(t, from+"/app:1"))
	manifest, err := index.IndexManifest()
	ok(t, err)
	for _, m := range manifest.Manifests {
		equal(t, "manifest", rawManifest(t, to+"/copy/app@"+m.Digest.String()), rawManifest(t, from+"/app@"+m.Digest.String()))
	}
	equal(t, "store", dump(t, s, from, "from", to, "to", digestOf(t, index), "index"), "from/app:1 index\nto/copy/app:2 index\n9 blobs, 0 unfinished\n")
}

func TestOnePlatform(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, nil)
	index := newIndex(t, "linux/s390x", host())
	upload(t, reg+"/app:latest", index)
	manifest, err := index.IndexManifest()
	ok(t, err)
	mine := manifest.Manifests[1].Digest.String()

	s := newStore(t, store.Options{})
	_, err = s.Pull(t.Context(), reg+"/app", store.PullOptions{})
	ok(t, err)
	equal(t, "list", list(t, s, store.ListOptions{}), reg+"/app latest ["+host()+"]\n")
	equal(t, "store", dump(t, s), reg+"/app:latest "+digestOf(t, index)+"\n5 blobs, 0 unfinished\n")

	// What is here is pushed; the index would point to what is not at the registry.
	ok(t, s.Tag(t.Context(), reg+"/app", reg+"/copy"))
	pushed, err := s.Push(t.Context(), reg+"/copy", store.PushOptions{})
	ok(t, err)
	equal(t, "pushed", fmt.Sprint(pushed.Target.Digest, " ", pushed.Part), mine+" "+host())
	equal(t, "manifest", rawManifest(t, reg+"/copy"), rawManifest(t, reg+"/app@"+mine))
	_, err = s.Push(t.Context(), reg+"/copy", store.PushOptions{Platform: &other})
	failsWith(t, err, "no image for platform linux/s390x")

	// Another platform comes to it, and the whole can be pushed.
	_, err = s.Pull(t.Context(), reg+"/app", store.PullOptions{Platforms: []ocispecs.Platform{other}})
	ok(t, err)
	equal(t, "list", list(t, s, store.ListOptions{References: []string{"*/app"}}), reg+"/app latest [linux/s390x "+host()+"]\n")
	ok(t, s.Tag(t.Context(), reg+"/app", reg+"/whole"))
	_, err = s.Push(t.Context(), reg+"/whole", store.PushOptions{})
	ok(t, err)
	equal(t, "index", rawManifest(t, reg+"/whole"), rawManifest(t, reg+"/app"))
}

func TestPullRefusals(t *testing.T) {
	t.Parallel()
	image := newImage(t, "linux/s390x")
	for _, c := range []struct {
		name string
		wrap func(http.Handler) http.Handler
		ref  string
		want string
	}{
		{"no such tag", nil, "app:2", "not found"},
		{"another platform", nil, "app:1", "no image for platform linux/arm64"},
		{"corrupted layer", replacing(t, image, func(b []byte) []byte { b[len(b)-1] ^= 1; return b }), "app:1", "unexpected commit digest"},
		{"layer cut off", replacing(t, image, func(b []byte) []byte { return b[:len(b)/2] }), "app:1", "unexpected"},
		{"refused", denying("/blobs/"), "app:1", "no entry for you"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			plain := http.Handler(nil)
			bad := false
			reg := newRegistry(t, func(h http.Handler) http.Handler {
				plain = h
				if c.wrap == nil {
					return h
				}
				wrapped := c.wrap(h)
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if bad {
						wrapped.ServeHTTP(w, r)
						return
					}
					plain.ServeHTTP(w, r)
				})
			})
			upload(t, reg+"/app:1", image)
			bad = true
			s := newStore(t, store.Options{})
			_, err := s.Pull(t.Context(), reg+"/"+c.ref, store.PullOptions{Platforms: []ocispecs.Platform{{OS: "linux", Architecture: "arm64"}}})
			failsWith(t, err, c.want)
			equal(t, "store", dump(t, s), nothing)
		})
	}
}

// replacing changes what a registry answers for an image's first layer.
func replacing(t *testing.T, image v1.Image, change func([]byte) []byte) func(http.Handler) http.Handler {
	layers, err := image.Layers()
	ok(t, err)
	d := digestOf(t, layers[0])
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, d) {
				h.ServeHTTP(w, r)
				return
			}
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			_, _ = w.Write(change(rec.Body.Bytes()))
		})
	}
}

func denying(path string) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.Contains(r.URL.Path, path) {
				h.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			_ = json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]string{"code": "DENIED", "message": "no entry for you"}}})
		})
	}
}

func TestPushRefusals(t *testing.T) {
	t.Parallel()
	from := newRegistry(t, nil)
	upload(t, from+"/app:1", newImage(t, host()))
	s := newStore(t, store.Options{})
	_, err := s.Pull(t.Context(), from+"/app:1", store.PullOptions{})
	ok(t, err)
	before := dump(t, s)

	_, err = s.Push(t.Context(), from+"/app:2", store.PushOptions{})
	failsWith(t, err, "no such image: "+from+"/app:2")
	for _, path := range []string{"/blobs/uploads/", "/manifests/"} {
		to := newRegistry(t, denying(path))
		ok(t, s.Tag(t.Context(), from+"/app:1", to+"/app:1"))
		_, err = s.Push(t.Context(), to+"/app:1", store.PushOptions{})
		failsWith(t, err, "no entry for you")
		_, err = s.Remove(t.Context(), to+"/app:1", false)
		ok(t, err)
	}
	equal(t, "store", dump(t, s), before)
}

func TestAllTags(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, nil)
	upload(t, reg+"/app:1", newImage(t, host()))
	s := newStore(t, store.Options{})
	_, err := s.Pull(t.Context(), reg+"/app:1", store.PullOptions{})
	ok(t, err)
	ok(t, s.Tag(t.Context(), reg+"/app:1", reg+"/app:2"))
	ok(t, s.Tag(t.Context(), reg+"/app:1", reg+"/application:3"))
	names, err := s.Tags(t.Context(), reg+"/app")
	ok(t, err)
	equal(t, "names", strings.Join(names, " "), reg+"/app:1 "+reg+"/app:2")
	_, err = s.Tags(t.Context(), reg+"/app:1")
	failsWith(t, err, "a tag can't be used")
	_, err = s.Tags(t.Context(), reg+"/nope")
	failsWith(t, err, "no such image")
}
