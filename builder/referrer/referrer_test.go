package referrer

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/moby/buildkit/util/attestation"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// repository is one at a registry, with an empty image.
func repository(t *testing.T, o ...registry.Option) (remotes.Resolver, string, ocispecs.Descriptor) {
	t.Helper()
	s := httptest.NewServer(registry.New(append(o, registry.Logger(log.New(io.Discard, "", 0)))...))
	t.Cleanup(s.Close)
	resolver := docker.NewResolver(docker.ResolverOptions{Hosts: docker.ConfigureDefaultRegistries(docker.WithPlainHTTP(docker.MatchLocalhost), docker.WithClient(http.DefaultClient))})
	where := strings.TrimPrefix(s.URL, "http://") + "/app"
	return resolver, where, artifact(t, resolver, where, "", "{}", nil)
}

// artifact pushes a manifest with one blob about another one.
func artifact(t *testing.T, resolver remotes.Resolver, where, artifactType, text string, about *ocispecs.Descriptor) ocispecs.Descriptor {
	t.Helper()
	blob, config := Descriptor("text/plain", []byte(text)), Descriptor(ocispecs.MediaTypeEmptyJSON, []byte("{}"))
	m, err := json.Marshal(ocispecs.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest, ArtifactType: artifactType,
		Config: config, Layers: []ocispecs.Descriptor{blob}, Subject: about})
	if err != nil {
		t.Fatal(err)
	}
	d := Descriptor(ocispecs.MediaTypeImageManifest, m)
	p, err := resolver.Pusher(t.Context(), where+"@"+d.Digest.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []struct {
		d    ocispecs.Descriptor
		text []byte
	}{{blob, []byte(text)}, {config, []byte("{}")}, {d, m}} {
		if err := Push(t.Context(), p, b.d, b.text); err != nil {
			t.Fatal(err)
		}
	}
	d.ArtifactType = artifactType
	return d
}

// TestAttestations: they are found among others, at registries that list artifacts (this one does not know artifactType) and at those that don't.
func TestAttestations(t *testing.T) {
	for kind, o := range map[string][]registry.Option{
		"with the referrers API": {registry.WithReferrersSupport(true)},
		"without it":             nil,
	} {
		resolver, where, image := repository(t, o...)
		f, err := resolver.Fetcher(t.Context(), where+"@"+image.Digest.String())
		if err != nil {
			t.Fatal(err)
		}
		found := func() (list []digest.Digest) {
			t.Helper()
			all, err := Attestations(t.Context(), f, image.Digest)
			if err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
			for _, d := range all {
				if d.ArtifactType != AttestationType {
					t.Errorf("%s: got one of type %s", kind, d.ArtifactType)
				}
				list = append(list, d.Digest)
			}
			return list
		}
		if got := found(); got != nil {
			t.Errorf("%s: got %v", kind, got)
		}
		put := func(artifactType, text string) digest.Digest {
			t.Helper()
			d := artifact(t, resolver, where, artifactType, text, &image)
			if err := Announce(t.Context(), resolver, where, image.Digest, d); err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
			return d.Digest
		}
		other := put("text/x-other", "o")
		one := put(AttestationType, "1")
		if got := found(); !slices.Equal(got, []digest.Digest{one}) {
			t.Errorf("%s: got %v, want %s", kind, got, one)
		}
		two := put(AttestationType, "2")
		if got := found(); !slices.Contains(got, two) || o == nil && len(got) != 1 {
			t.Errorf("%s: got %v, want %s, which takes the other's place where clients list", kind, got, two)
		}
		all, err := List(t.Context(), f, image.Digest)
		if err != nil || !slices.ContainsFunc(all, func(d ocispecs.Descriptor) bool { return d.Digest == other }) {
			t.Errorf("%s: the other artifact is not listed any more: %v, %v", kind, all, err)
		}
	}
}

func TestSplit(t *testing.T) {
	one, two := ocispecs.Descriptor{Digest: digest.FromString("1")}, ocispecs.Descriptor{Digest: digest.FromString("2")}
	about := ocispecs.Descriptor{Digest: digest.FromString("a"), Annotations: map[string]string{
		attestation.DockerAnnotationReferenceType:   attestation.DockerAnnotationReferenceTypeDefault,
		attestation.DockerAnnotationReferenceDigest: two.Digest.String(),
	}}
	images, attestations := Split([]ocispecs.Descriptor{one, about, two})
	if len(images) != 2 || images[0].Digest != one.Digest || images[1].Digest != two.Digest || len(attestations) != 1 || attestations[two.Digest].Digest != about.Digest {
		t.Errorf("got %v, %v", images, attestations)
	}
}

// TestMarked: what is beside a manifest is known, and kept by containerd's collector for as long as the manifest is.
func TestMarked(t *testing.T) {
	ctx := namespaces.WithNamespace(t.Context(), "test")
	blobs, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(t.TempDir()+"/db", 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	mdb := metadata.NewDB(db, blobs, nil)
	store := mdb.ContentStore()
	write := func(text string) ocispecs.Descriptor {
		t.Helper()
		d := Descriptor(ocispecs.MediaTypeImageManifest, []byte(text))
		if err := content.WriteBlob(ctx, store, text, strings.NewReader(text), d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	image, old, attested := write("image"), write("old"), write("attested")
	if list := Marked(ctx, store, image.Digest); list != nil {
		t.Errorf("got %v", list)
	}
	for _, d := range []ocispecs.Descriptor{old, attested} {
		if err := Mark(ctx, store, image.Digest, d.Digest); err != nil {
			t.Fatal(err)
		}
		if got := Marked(ctx, store, image.Digest); len(got) != 1 || got[0].Digest != d.Digest || got[0].Size != d.Size {
			t.Errorf("got %v, want %v", got, d)
		}
	}
	kept := []ocispecs.Descriptor{write("signature"), write("another")}
	for _, d := range append(kept, attested) { // one of them is noted twice
		if err := Keep(ctx, store, image.Digest, d.Digest); err != nil {
			t.Fatal(err)
		}
	}
	if got := Marked(ctx, store, image.Digest); len(got) != 3 {
		t.Errorf("got %v, want the attestation and two others", got)
	}
	names := metadata.NewImageStore(mdb)
	if _, err := names.Create(ctx, images.Image{Name: "app", Target: image}); err != nil {
		t.Fatal(err)
	}
	there := func(want ...ocispecs.Descriptor) {
		t.Helper()
		if _, err := mdb.GarbageCollect(ctx); err != nil {
			t.Fatal(err)
		}
		for _, d := range append(kept, image, old, attested) {
			_, err := store.Info(ctx, d.Digest)
			if wanted := slices.ContainsFunc(want, func(w ocispecs.Descriptor) bool { return w.Digest == d.Digest }); wanted != (err == nil) {
				t.Errorf("%s: %v", d.Digest, err)
			}
		}
	}
	there(append(kept, image, attested)...)
	if err := names.Delete(ctx, "app"); err != nil {
		t.Fatal(err)
	}
	there()
}
