package profile

import (
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/referrer"
)

var amd64 = ocispecs.Platform{OS: "linux", Architecture: "amd64"}

// host is a registry with an index of two platforms under app:1, and an image under single:1.
func host(t *testing.T, o ...registry.Option) (where string, images map[string]v1.Image) {
	t.Helper()
	s := httptest.NewServer(registry.New(append(o, registry.Logger(log.New(io.Discard, "", 0)))...))
	t.Cleanup(s.Close)
	where = strings.TrimPrefix(s.URL, "http://")
	images = map[string]v1.Image{}
	var index v1.ImageIndex = empty.Index
	for _, arch := range []string{"amd64", "arm64"} {
		image, err := random.Image(100, 1)
		if err != nil {
			t.Fatal(err)
		}
		images[arch] = image
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	write := func(tag string, put func(name.Reference) error) {
		ref, err := name.ParseReference(where + "/" + tag)
		if err == nil {
			err = put(ref)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write("app:1", func(r name.Reference) error { return remote.WriteIndex(r, index) })
	write("single:1", func(r name.Reference) error { return remote.Write(r, images["amd64"]) })
	return where, images
}

func registries() Registry {
	return NewRegistry(docker.ConfigureDefaultRegistries(docker.WithPlainHTTP(docker.MatchLocalhost)))
}

func TestAttach(t *testing.T) {
	for kind, o := range map[string][]registry.Option{
		"with the referrers API": {registry.WithReferrersSupport(true)},
		"without it":             nil,
	} {
		t.Run(kind, func(t *testing.T) {
			where, images := host(t, o...)
			r, app := registries(), named(t, where+"/app:1")
			none := func(n reference.Named, p ocispecs.Platform) {
				t.Helper()
				if found, err := r.Find(t.Context(), n, p); !errors.Is(err, ErrNone) {
					t.Errorf("%s: got %v, %v", n, found, err)
				}
			}
			none(app, amd64)
			none(named(t, where+"/app:2"), amd64)

			image, config, err := r.Manifest(t.Context(), app, amd64)
			if err != nil {
				t.Fatal(err)
			}
			want, _ := images["amd64"].Digest()
			wantConfig, _ := images["amd64"].ConfigName()
			if image.Digest.String() != want.String() || config.String() != wantConfig.String() {
				t.Errorf("got %s with %s, want %s with %s", image.Digest, config, want, wantConfig)
			}
			at := time.Unix(1e9, 0)
			attach := func(file string) ocispecs.Descriptor {
				t.Helper()
				at = at.Add(time.Second)
				d, err := r.Attach(t.Context(), app, image, of("x", "linux/amd64", file), at)
				if err != nil {
					t.Fatal(err)
				}
				return d
			}
			first := func() string {
				t.Helper()
				p, err := r.Find(t.Context(), app, amd64)
				if err != nil {
					t.Fatal(err)
				}
				return p.Files[0].Path
			}
			d := attach("/one")
			if got := first(); got != "/one" {
				t.Errorf("got %s", got)
			}
			for _, file := range []string{"/two", "/three", "/four"} { // the order of digests is none of times
				attach(file)
				if got := first(); got != file {
					t.Errorf("got %s, want %s", got, file)
				}
			}
			none(app, ocispecs.Platform{OS: "linux", Architecture: "arm64"})
			none(app, ocispecs.Platform{OS: "linux", Architecture: "s390x"})
			none(named(t, where+"/single:1"), amd64) // the same image, in another repository

			// Another tool finds it, too, as the specification has it.
			subject, err := name.NewDigest(where + "/app@" + image.Digest.String())
			if err != nil {
				t.Fatal(err)
			}
			index, err := remote.Referrers(subject)
			if err != nil {
				t.Fatal(err)
			}
			m, err := index.IndexManifest()
			if err != nil || len(m.Manifests) == 0 {
				t.Fatalf("got %v, %v", m, err)
			}
			for _, one := range m.Manifests {
				if one.ArtifactType != MediaType {
					t.Errorf("got an artifact of type %s", one.ArtifactType)
				}
			}
			if d.ArtifactType != MediaType {
				t.Errorf("got %v", d)
			}
		})
	}
}

func TestNoImage(t *testing.T) {
	where, _ := host(t)
	r := registries()
	if _, _, err := r.Manifest(t.Context(), named(t, where+"/nothing"), amd64); !errors.Is(err, ErrNoImage) {
		t.Errorf("got %v", err)
	}
	if _, err := r.Find(t.Context(), named(t, "127.0.0.1:1/nothing"), amd64); err == nil || errors.Is(err, ErrNone) {
		t.Errorf("a registry that is not there: got %v", err)
	}
}

// What a registry gives for a profile is not believed.
func TestHostileProfile(t *testing.T) {
	where, _ := host(t)
	r, app := registries(), named(t, where+"/app:1")
	image, _, err := r.Manifest(t.Context(), app, amd64)
	if err != nil {
		t.Fatal(err)
	}
	artifact := func(mediaType string, content []byte) ocispecs.Descriptor {
		t.Helper()
		pusher, err := r.resolver().Pusher(t.Context(), app.Name()+"@"+image.Digest.String())
		if err != nil {
			t.Fatal(err)
		}
		blob := referrer.Descriptor(mediaType, content)
		m := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[{"mediaType":"` + mediaType + `","digest":"` + blob.Digest.String() + `","size":` + "5" + `}]}`)
		d := referrer.Descriptor(ocispecs.MediaTypeImageManifest, m)
		if err := errors.Join(referrer.Push(t.Context(), pusher, blob, content), referrer.Push(t.Context(), pusher, d, m)); err != nil {
			t.Fatal(err)
		}
		d.ArtifactType = MediaType
		return d
	}
	for what, c := range map[string]struct {
		mediaType, content, want string
	}{
		"no profile":     {MediaType, "12345", "cannot unmarshal"},
		"another size":   {MediaType, "123456789", "what came is not"},
		"something else": {"text/plain", "12345", "no artifact with a profile"},
	} {
		if err := referrer.Announce(t.Context(), r.resolver(), app.Name(), image.Digest, artifact(c.mediaType, []byte(c.content))); err != nil {
			t.Fatal(err)
		}
		if p, err := r.Find(t.Context(), app, amd64); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, %v, want %q", what, p, err, c.want)
		}
	}
}
