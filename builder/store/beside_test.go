package store_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/referrer"
	"github.com/optbuild/optbuild/builder/store"
)

const signatureType = "application/vnd.example.signature"

// attach puts an artifact about a manifest of a repository there.
func attach(t *testing.T, repository string, subject v1.Descriptor, artifactType, content string) string {
	t.Helper()
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.MediaType(artifactType))
	image, err := mutate.AppendLayers(image, static.NewLayer([]byte(content), "text/plain"))
	ok(t, err)
	artifact := mutate.Subject(image, subject).(v1.Image)
	d, err := artifact.Digest()
	ok(t, err)
	ref, err := name.NewDigest(repository + "@" + d.String())
	ok(t, err)
	ok(t, remote.Write(ref, artifact))
	return d.String()
}

// beside lists what a registry says is beside a manifest, as TYPE DIGEST.
func beside(t *testing.T, repository, subject string) (list []string) {
	t.Helper()
	ref, err := name.NewDigest(repository + "@" + subject)
	ok(t, err)
	index, err := remote.Referrers(ref)
	ok(t, err)
	m, err := index.IndexManifest()
	ok(t, err)
	for _, d := range m.Manifests {
		list = append(list, d.ArtifactType+" "+d.Digest.String())
	}
	slices.Sort(list)
	return list
}

// signed is an index of two platforms with an attestation and two signatures beside one of its manifests, and a signature beside itself.
type signed struct {
	repository, index, manifest string
	ofIndex, ofManifest         []string // TYPE DIGEST, sorted
}

func newSigned(t *testing.T, registry string) (s signed) {
	t.Helper()
	index := newIndex(t, host(), "linux/s390x")
	s.repository = registry + "/app"
	upload(t, s.repository+":1", index)
	whole, err := partial.Descriptor(index)
	ok(t, err)
	m, err := index.IndexManifest()
	ok(t, err)
	subject := m.Manifests[0]
	subject.Platform = nil
	s.index, s.manifest = whole.Digest.String(), subject.Digest.String()
	s.ofIndex = []string{signatureType + " " + attach(t, s.repository, *whole, signatureType, "of all")}
	for _, a := range [][2]string{{referrer.AttestationType, "how it was made"}, {signatureType, "one"}, {signatureType, "two"}} {
		s.ofManifest = append(s.ofManifest, a[0]+" "+attach(t, s.repository, subject, a[0], a[1]))
	}
	slices.Sort(s.ofManifest)
	return s
}

// TestBeside: what is beside an image comes with all of it, goes into an archive and out of it, and to another registry, whether that lists artifacts or leaves it to clients.
func TestBeside(t *testing.T) {
	t.Parallel()
	for _, lists := range []bool{true, false} {
		t.Run(fmt.Sprint("registry lists: ", lists), func(t *testing.T) {
			t.Parallel()
			kind := func(http.Handler) http.Handler {
				return registry.New(registry.WithReferrersSupport(lists), registry.Logger(log.New(io.Discard, "", 0)))
			}
			from, to := newSigned(t, newRegistry(t, kind)), newRegistry(t, kind)
			s := newStore(t, store.Options{})
			pulled, err := s.Pull(t.Context(), from.repository+":1", store.PullOptions{AllPlatforms: true})
			ok(t, err)
			ok(t, pulled.Unlisted)
			ok(t, s.Tag(t.Context(), from.repository+":1", to+"/copy:1"))
			_, err = s.Push(t.Context(), to+"/copy:1", store.PushOptions{})
			ok(t, err)
			equal(t, "index", rawManifest(t, to+"/copy:1"), rawManifest(t, from.repository+":1"))
			equal(t, "beside the manifest", fmt.Sprint(beside(t, to+"/copy", from.manifest)), fmt.Sprint(from.ofManifest))
			equal(t, "beside the index", fmt.Sprint(beside(t, to+"/copy", from.index)), fmt.Sprint(from.ofIndex))

			// An archive has what is beside manifests, and beside the index.
			var b bytes.Buffer
			ok(t, s.Save(t.Context(), &b, []string{to + "/copy:1"}, store.SaveOptions{}))
			s = newStore(t, store.Options{})
			loaded, err := s.Load(t.Context(), &b)
			ok(t, err)
			equal(t, "loaded", fmt.Sprint(loaded), fmt.Sprintf("[{%s/copy:1 %s}]", to, from.index))
			i, err := s.Inspect(t.Context(), to+"/copy:1", nil)
			ok(t, err)
			var kinds []string
			for _, m := range i.Manifests {
				switch m.About.String() {
				case from.manifest:
					kinds = append(kinds, strings.TrimSpace("manifest: "+m.Kind+" "+m.Type))
				case from.index:
					kinds = append(kinds, strings.TrimSpace("index: "+m.Kind+" "+m.Type))
				}
			}
			slices.Sort(kinds)
			equal(t, "kinds", fmt.Sprint(kinds), fmt.Sprintf("[index: artifact %[1]s manifest: artifact %[1]s manifest: artifact %[1]s manifest: attestation]", signatureType))
			ok(t, s.Tag(t.Context(), to+"/copy:1", to+"/loaded:1"))
			_, err = s.Push(t.Context(), to+"/loaded:1", store.PushOptions{})
			ok(t, err)
			equal(t, "beside the manifest", fmt.Sprint(beside(t, to+"/loaded", from.manifest)), fmt.Sprint(from.ofManifest))
			equal(t, "beside the index", fmt.Sprint(beside(t, to+"/loaded", from.index)), fmt.Sprint(from.ofIndex))

			// With the image it goes.
			for _, ref := range []string{to + "/copy:1", to + "/loaded:1"} {
				_, err = s.Remove(t.Context(), ref, false)
				ok(t, err)
			}
			equal(t, "store", dump(t, s), nothing)
		})
	}
}

// TestBesideOnePlatform: who pulls what runs here asks for no artifacts.
func TestBesideOnePlatform(t *testing.T) {
	t.Parallel()
	from := newSigned(t, newRegistry(t, nil))
	s := newStore(t, store.Options{})
	_, err := s.Pull(t.Context(), from.repository+":1", store.PullOptions{})
	ok(t, err)
	equal(t, "store", dump(t, s, from.index, "id"), from.repository+":1 id\n5 blobs, 0 unfinished\n")
}

// TestBesideRefused: a registry that does not answer costs what is beside the image, and that is told.
func TestBesideRefused(t *testing.T) {
	t.Parallel()
	bad := false
	from := newSigned(t, newRegistry(t, func(h http.Handler) http.Handler {
		refuse := denying("/referrers/")(denying("/manifests/sha256-")(h)) // the second is where artifacts are that clients list
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if bad {
				h = refuse
			}
			h.ServeHTTP(w, r)
		})
	}))
	bad = true
	s := newStore(t, store.Options{})
	pulled, err := s.Pull(t.Context(), from.repository+":1", store.PullOptions{AllPlatforms: true})
	ok(t, err)
	failsWith(t, pulled.Unlisted, "no entry for you")
	equal(t, "store", dump(t, s, from.index, "id"), from.repository+":1 id\n9 blobs, 0 unfinished\n")
}

// TestLoadBeside: an archive's artifact is no image, whatever it is about, and needs one.
func TestLoadBeside(t *testing.T) {
	t.Parallel()
	archive, id := saved(t)
	artifact := func(subject string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"text/x-note","config":%s,"layers":[],"subject":{"mediaType":%[1]q,"digest":%[3]q,"size":1}}`,
			ocispecs.MediaTypeImageManifest, descriptor(ocispecs.MediaTypeEmptyJSON, "{}", ""), subject)
	}
	for _, c := range []struct {
		name, subject string
		kept          bool
	}{{"of the image", id, true}, {"of something else", ociDigest("else"), false}} {
		t.Run(c.name, func(t *testing.T) {
			a := artifact(c.subject)
			files := map[string]string{}
			for r := tar.NewReader(bytes.NewReader(archive)); ; {
				h, err := r.Next()
				if err == io.EOF {
					break
				}
				ok(t, err)
				text, err := io.ReadAll(r)
				ok(t, err)
				if h.Typeflag == tar.TypeReg {
					files[h.Name] = string(text)
				}
			}
			files[blob(a)], files[blob("{}")] = a, "{}"
			entry := descriptor(ocispecs.MediaTypeImageManifest, a, "")
			files["index.json"] = strings.Replace(files["index.json"], `"manifests":[`, `"manifests":[`+entry+",", 1)
			s := newStore(t, store.Options{})
			loaded, err := s.Load(t.Context(), bytes.NewReader(pack(t, files)))
			ok(t, err)
			equal(t, "loaded", fmt.Sprint(loaded), "[{docker.io/library/app:1 "+id+"}]")
			blobs := 5
			if c.kept {
				blobs = 7
			}
			equal(t, "store", dump(t, s, id, "id"), fmt.Sprintf("docker.io/library/app:1 id\n%d blobs, 0 unfinished\n", blobs))
			i, err := s.Inspect(t.Context(), "app:1", nil)
			ok(t, err)
			equal(t, "beside", fmt.Sprint(slices.ContainsFunc(i.Manifests, func(m store.InspectedManifest) bool { return m.About != "" })), fmt.Sprint(c.kept))

			files["index.json"] = `{"schemaVersion":2,"manifests":[` + entry + `]}`
			_, err = newStore(t, store.Options{}).Load(t.Context(), bytes.NewReader(pack(t, files)))
			failsWith(t, err, "it has no images")
		})
	}
}

// TestBesideLie: what a registry lists beside a manifest, and is about another one, is not beside it.
func TestBesideLie(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, nil) // clients list
	index := newIndex(t, host(), "linux/s390x")
	upload(t, reg+"/app:1", index)
	m, err := index.IndexManifest()
	ok(t, err)
	mine, foreign := m.Manifests[0], m.Manifests[1]
	foreign.Platform = nil
	d := attach(t, reg+"/app", foreign, signatureType, "of another")
	tag := func(subject v1.Descriptor) string {
		return reg + "/app:" + strings.Replace(subject.Digest.String(), ":", "-", 1)
	}
	lie, err := name.ParseReference(tag(mine))
	ok(t, err)
	listed, err := name.ParseReference(tag(foreign))
	ok(t, err)
	list, err := remote.Index(listed)
	ok(t, err)
	ok(t, remote.WriteIndex(lie, list))

	s := newStore(t, store.Options{})
	_, err = s.Pull(t.Context(), reg+"/app:1", store.PullOptions{AllPlatforms: true})
	ok(t, err)
	i, err := s.Inspect(t.Context(), reg+"/app:1", nil)
	ok(t, err)
	var about []string
	for _, m := range i.Manifests {
		if m.About != "" {
			about = append(about, m.Digest.String()+" "+m.About.String())
		}
	}
	equal(t, "beside", fmt.Sprint(about), fmt.Sprint([]string{d + " " + foreign.Digest.String()}))
}
