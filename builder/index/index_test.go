package index

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/moby/buildkit/util/attestation"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestRace: machines that build a platform each join at the same time, a hundred times, over a registry without conditions and one with, whose answers and effects are late. When a Join
// has returned, its platform is in the index from then on.
func TestRace(t *testing.T) {
	list := []string{"linux/amd64", "linux/arm64", "linux/arm/v7", "linux/riscv64"}
	for _, c := range []struct {
		name          string
		rounds        int
		machines      int
		before, after time.Duration
		conditional   bool
	}{
		{"two", 100, 2, usual.window / 4, usual.window / 4, false},
		{"two, conditional", 20, 2, usual.window / 4, usual.window / 4, true},
		{"four", 100, 4, usual.window / 4, usual.window / 4, false},
		{"four, fast", 20, 4, time.Millisecond, time.Millisecond, false},
		// Requests that are given up take effect later.
		{"two, late", 50, 2, usual.grace, usual.grace / 2, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range c.rounds {
				synctest.Test(t, func(t *testing.T) { race(t, list[:c.machines], c.before, c.after, c.conditional) })
			}
		})
	}
}

func race(t *testing.T, list []string, before, after time.Duration, conditional bool) {
	f := newFake()
	digests := map[string]digest.Digest{}
	for _, p := range list {
		digests[p], _ = f.push(t, "app", p)
	}
	var mu sync.Mutex
	var certain []string
	f.stored = func(b []byte) {
		mu.Lock()
		defer mu.Unlock()
		var x ocispecs.Index
		if err := json.Unmarshal(b, &x); err != nil {
			t.Errorf("an index that is no JSON was stored: %v", err)
		}
		for _, p := range certain {
			if !slices.ContainsFunc(x.Manifests, func(d ocispecs.Descriptor) bool { return d.Digest == digests[p] && platform(d) == p }) {
				t.Errorf("%s was lost after its Join had returned", p)
			}
		}
	}
	f.before, f.after, f.conditional = before, after, conditional
	named := mustTag(t, host+"/app:1").named
	var wg sync.WaitGroup
	for _, p := range list {
		wg.Go(func() {
			_, err := f.open().Join(t.Context(), named, digests[p])
			for errors.Is(err, ErrBusy) || errors.Is(err, context.DeadlineExceeded) {
				_, err = f.open().Join(t.Context(), named, digests[p])
			}
			if err != nil {
				t.Errorf("%s: %v", p, err)
				return
			}
			mu.Lock()
			certain = append(certain, p)
			mu.Unlock()
		})
	}
	wg.Wait()
	f.pending.Wait()
	f.before, f.after = 0, 0
	puts := f.puts
	got, err := f.open().Join(t.Context(), named, digests[list[0]]) // changes nothing
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Sorted(slices.Values(list))
	if !slices.Equal(got.Platforms(), want) {
		t.Errorf("the index has %v, want %v", got.Platforms(), want)
	}
	if f.puts != puts {
		t.Error("joining again wrote an index")
	}
}

func TestUnion(t *testing.T) {
	entry := func(d, p string, annotations ...string) ocispecs.Descriptor {
		e := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageManifest, Digest: digest.FromString(d), Size: 1}
		if p != "" {
			spec := platforms.MustParse(p)
			e.Platform = &spec
		}
		for i := 0; i+1 < len(annotations); i += 2 {
			if e.Annotations == nil {
				e.Annotations = map[string]string{}
			}
			e.Annotations[annotations[i]] = annotations[i+1]
		}
		return e
	}
	attests := func(d, of string) ocispecs.Descriptor {
		return entry(d, "unknown/unknown", attestation.DockerAnnotationReferenceType, attestation.DockerAnnotationReferenceTypeDefault,
			attestation.DockerAnnotationReferenceDigest, digest.FromString(of).String())
	}
	type entries = []ocispecs.Descriptor
	for name, c := range map[string]struct{ have, parts, want entries }{
		"first":            {nil, entries{entry("a", "linux/arm64")}, entries{entry("a", "linux/arm64")}},
		"in order":         {entries{entry("a", "linux/arm64")}, entries{entry("b", "linux/amd64")}, entries{entry("b", "linux/amd64"), entry("a", "linux/arm64")}},
		"replaced":         {entries{entry("a", "linux/arm64"), entry("b", "linux/s390x")}, entries{entry("c", "linux/arm64/v8")}, entries{entry("c", "linux/arm64/v8"), entry("b", "linux/s390x")}},
		"variants are two": {entries{entry("a", "linux/arm/v7")}, entries{entry("b", "linux/arm/v6")}, entries{entry("b", "linux/arm/v6"), entry("a", "linux/arm/v7")}},
		"again":            {entries{entry("a", "linux/arm64", "k", "v")}, entries{entry("a", "linux/arm64")}, entries{entry("a", "linux/arm64", "k", "v")}},
		"with attestation": {entries{entry("a", "linux/arm64"), attests("x", "a")}, entries{entry("b", "linux/amd64"), attests("y", "b")},
			entries{entry("b", "linux/amd64"), entry("a", "linux/arm64"), attests("y", "b"), attests("x", "a")}},
		"replaced with attestation": {entries{entry("a", "linux/arm64"), attests("x", "a")}, entries{entry("c", "linux/arm64"), attests("z", "c")},
			entries{entry("c", "linux/arm64"), attests("z", "c")}},
		"attestation of nothing": {nil, entries{attests("x", "a")}, nil},
	} {
		got := union(c.have, c.parts)
		a, _ := json.MarshalIndent(got, "", " ")
		b, _ := json.MarshalIndent(c.want, "", " ")
		if string(a) != string(b) && len(got)+len(c.want) > 0 {
			t.Errorf("%s: got\n%s\nwant\n%s", name, a, b)
		}
	}
}

// TestJoinImage: a name that refers to an image without index counts as one for the image's platform.
func TestJoinImage(t *testing.T) {
	f := newFake()
	r := f.open()
	r.timing = timing{time.Millisecond * 50, 0, time.Minute}
	amd, img := f.push(t, "app", "linux/amd64")
	if err := remote.Write(mustName(t, "app:1"), img, remote.WithTransport(f)); err != nil {
		t.Fatal(err)
	}
	arm, _ := f.push(t, "app", "linux/arm64")
	got, err := r.Join(t.Context(), mustTag(t, host+"/app:1").named, arm)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"linux/amd64", "linux/arm64"}; !slices.Equal(got.Platforms(), want) || got.Index.Manifests[0].Digest != amd {
		t.Errorf("got %v, want %v", got.Index.Manifests, want)
	}
}

func mustName(t *testing.T, ref string) name.Reference {
	t.Helper()
	n, err := name.ParseReference(host+"/"+ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCreate(t *testing.T) {
	f := newFake()
	r := f.open()
	var sources []string
	for _, p := range []string{"linux/arm64", "linux/amd64"} {
		d, _ := f.push(t, "parts", p)
		sources = append(sources, host+"/parts@"+d.String())
	}
	tags := []string{"app:1", "other/app:2"}
	var named []string
	made, err := r.Create(t.Context(), namedTags(t, tags...), CreateOptions{Sources: sources, Annotations: []Annotation{
		{Key: "org.example.a", Value: "1"}, {Entry: true, Platform: &ocispecs.Platform{OS: "linux", Architecture: "arm64"}, Key: "org.example.b", Value: "2"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range made {
		named = append(named, m.Name)
		in, err := r.Inspect(t.Context(), host+"/"+tags[i])
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range in.Entries {
			got = append(got, fmt.Sprint(e.Platform, e.Annotations))
			if _, err := r.Inspect(t.Context(), e.Name); err != nil {
				t.Errorf("%s was not copied: %v", e.Name, err)
			}
		}
		if want := []string{"linux/amd64map[]", "linux/arm64map[org.example.b:2]"}; !slices.Equal(got, want) || in.Digest != m.Digest || in.Annotated["org.example.a"] != "1" {
			t.Errorf("%s: got %v %v, want %v", m.Name, got, in.Annotated, want)
		}
	}
	if want := []string{host + "/app:1", host + "/other/app:2"}; !slices.Equal(named, want) {
		t.Errorf("made %v, want %v", named, want)
	}

	// An index alone is copied as it is; a part of it is not it.
	copied, err := r.Create(t.Context(), namedTags(t, "copy:1"), CreateOptions{Sources: []string{host + "/app:1"}})
	if err != nil || copied[0].Digest != made[0].Digest {
		t.Errorf("copied as %v, %v; want %s", copied, err, made[0].Digest)
	}
	arm := ocispecs.Platform{OS: "linux", Architecture: "arm64"}
	part, err := r.Create(t.Context(), namedTags(t, "part:1"), CreateOptions{Sources: []string{host + "/app:1"}, Platforms: []ocispecs.Platform{arm}})
	if err != nil || !slices.Equal(part[0].Platforms(), []string{"linux/arm64"}) {
		t.Errorf("got %v, %v", part, err)
	}
	if _, err := r.Create(t.Context(), namedTags(t, "part:2"), CreateOptions{Sources: []string{host + "/part:1"}, Platforms: []ocispecs.Platform{{OS: "linux", Architecture: "386"}}}); err == nil {
		t.Error("an index of nothing was made")
	}
	_, err = r.Create(t.Context(), namedTags(t, "part:2"), CreateOptions{Sources: []string{host + "/app:1"}, Platforms: []ocispecs.Platform{arm, {OS: "linux", Architecture: "386"}}})
	if err == nil || !strings.Contains(err.Error(), "none of the sources has linux/386") {
		t.Errorf("a platform that no source has was left out: %v", err)
	}
	dry, err := r.Create(t.Context(), namedTags(t, "dry:1"), CreateOptions{Sources: sources, DryRun: true})
	if err != nil || len(dry[0].Index.Manifests) != 2 || digest.FromBytes(dry[0].Raw) != dry[0].Digest {
		t.Errorf("dry run: %v, %v", dry, err)
	}
	if _, err := r.Inspect(t.Context(), host+"/dry:1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("after a dry run: %v, want ErrNotFound", err)
	}

	r.timing = timing{50 * time.Millisecond, 0, time.Minute}
	d, _ := f.push(t, "parts", "linux/s390x")
	adding := CreateOptions{Sources: []string{host + "/parts@" + d.String()}, Append: true}
	adding.DryRun = true
	foreseen, err := r.Create(t.Context(), namedTags(t, "app:1"), adding)
	if err != nil {
		t.Fatal(err)
	}
	adding.DryRun = false
	more, err := r.Create(t.Context(), namedTags(t, "app:1"), adding)
	if err == nil && foreseen[0].Digest != more[0].Digest {
		t.Errorf("a dry run has foreseen %v, not %v", foreseen, more)
	}
	if err != nil || !slices.Equal(more[0].Platforms(), []string{"linux/amd64", "linux/arm64", "linux/s390x"}) || more[0].Index.Annotations["org.example.a"] != "1" {
		t.Errorf("appended: %v, %v", more, err)
	}
	noted, err := r.Annotate(t.Context(), namedTags(t, "app:1")[0], []Annotation{{Key: "org.example.a"}, {Entry: true, Key: "c", Value: "3"}})
	if err != nil || len(noted.Index.Annotations) != 0 || noted.Index.Manifests[2].Annotations["c"] != "3" {
		t.Errorf("annotated: %v, %v", noted, err)
	}
	if _, err := r.Annotate(t.Context(), namedTags(t, "nothing:1")[0], []Annotation{{Key: "a", Value: "b"}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("annotating nothing: %v, want ErrNotFound", err)
	}
}

// TestCreateTwins: an index that has two entries for a platform, as those of several variants may, is copied whole.
func TestCreateTwins(t *testing.T) {
	f := newFake()
	r := f.open()
	x := ocispecs.Index{Versioned: specs.Versioned{SchemaVersion: 2}}
	for _, variant := range []string{"a", "b"} {
		_, img := f.push(t, "twins", "linux/amd64")
		m, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		m.Annotations = map[string]string{"variant": variant}
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		d := ocispecs.Descriptor{MediaType: string(m.MediaType), Digest: digest.FromBytes(b), Size: int64(len(b)), Platform: &ocispecs.Platform{OS: "linux", Architecture: "amd64"}}
		if err := (tag{r.hosts, namedTags(t, "twins:"+variant)[0]}).put(t.Context(), d.MediaType, b, seen{}); err != nil {
			t.Fatal(err)
		}
		x.Manifests = append(x.Manifests, d)
	}
	mediaType, b, err := encode(x)
	if err != nil {
		t.Fatal(err)
	}
	if err := (tag{r.hosts, namedTags(t, "twins:both")[0]}).put(t.Context(), mediaType, b, seen{}); err != nil {
		t.Fatal(err)
	}
	made, err := r.Create(t.Context(), namedTags(t, "copy:both"), CreateOptions{Sources: []string{host + "/twins:both"}})
	if err != nil || made[0].Digest != digest.FromBytes(b) {
		t.Errorf("made %v of %d entries: %v", made, len(x.Manifests), err)
	}
}

func namedTags(t *testing.T, refs ...string) (list []reference.NamedTagged) {
	t.Helper()
	for _, ref := range refs {
		list = append(list, mustTag(t, host+"/"+ref).named)
	}
	return list
}
