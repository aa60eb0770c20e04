package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// TestParityAttested builds for two platforms with provenance. With --attest-in=index the index has what stock BuildKit's has: the same images, byte for byte, and attestations of the
// same form, of which no two are equal. Without it the index is stock BuildKit's without provenance, and artifacts of that form are beside the images.
func TestParityAttested(t *testing.T) {
	g := prepare(t)
	needStock(t)
	work, server := workplace(t, g, "attested-")
	dir := filepath.Join(work, "app")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nARG TARGETARCH\nLABEL arch=$TARGETARCH\nCOPY Dockerfile /\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) {
		t.Helper()
		c := exec.CommandContext(t.Context(), args[0], args[1:]...)
		c.Env = append(os.Environ(), "OPTBUILD_ROOT="+filepath.Join(work, "root.state"), "SOURCE_DATE_EPOCH=1")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", args, err, out)
		}
	}
	// A repository for each: a registry lists what is beside an image whatever tag it has.
	const output = "type=image,push=true,rewrite-timestamp=true,compression=uncompressed,name="
	stock := startStock(t, filepath.Join(work, "stock"))
	buildctl := func(repository string, more ...string) {
		run(append([]string{os.Getenv("STOCK_BUILDCTL"), "--addr", stock.addr, "build", "--frontend=dockerfile.v0", "--local", "context=" + dir, "--local", "dockerfile=" + dir,
			"--opt", "build-arg:SOURCE_DATE_EPOCH=1", "--opt", "platform=linux/amd64,linux/arm64", "--output", output + server.Addr + "/stock-" + repository}, more...)...)
	}
	optbuild := func(repository string, more ...string) {
		run(append([]string{filepath.Join(g.Dir, "bin", "optbuild"), "build", "--optimize=off", "--platform=linux/amd64,linux/arm64", "-o", output + server.Addr + "/ours-" + repository, dir}, more...)...)
	}
	buildctl("plain")
	buildctl("attested", "--opt", "attest:provenance=mode=max")
	optbuild("index", "--provenance=mode=max", "--attest-in=index")
	optbuild("beside", "--provenance=mode=max")

	want, wantAttested := server.attested(t, "stock-attested")
	got, gotAttested := server.attested(t, "ours-index")
	if got != want {
		t.Errorf("in the index: got\n%s\nwant\n%s", got, want)
	}
	if gotAttested != wantAttested || strings.Count(wantAttested, "artifact") != 2 {
		t.Errorf("attestations in the index: got\n%s\nwant\n%s", gotAttested, wantAttested)
	}
	plain, none := server.attested(t, "stock-plain")
	got, gotAttested = server.attested(t, "ours-beside")
	if got != plain || none != "" {
		t.Errorf("beside the images: got\n%s\nwant\n%s\nand nothing of\n%s", got, plain, none)
	}
	if gotAttested != wantAttested {
		t.Errorf("attestations beside the images: got\n%s\nwant\n%s", gotAttested, wantAttested)
	}
}

// attested prints an index, with the digests of images only, and the form of all that is attested of them, in it or beside it.
func (s *server) attested(t *testing.T, ref string) (index, attestations string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", ref, err)
		}
	}
	r, err := name.ParseReference(s.Addr+"/"+ref, name.Insecure)
	check(err)
	x, err := remote.Index(r)
	check(err)
	m, err := x.IndexManifest()
	check(err)
	var list, forms strings.Builder
	fmt.Fprintln(&list, m.MediaType, m.SchemaVersion, m.Annotations)
	seen := map[v1.Hash]bool{}
	form := func(d v1.Descriptor) {
		if seen[d.Digest] {
			return
		}
		seen[d.Digest] = true
		img, err := remote.Image(r.Context().Digest(d.Digest.String()))
		check(err)
		forms.WriteString(attestationForm(t, img))
	}
	for _, d := range m.Manifests {
		if d.Annotations["vnd.docker.reference.type"] == "attestation-manifest" {
			fmt.Fprintln(&list, d.MediaType, d.Platform, d.Annotations)
			continue
		}
		fmt.Fprintln(&list, d.MediaType, d.Digest, d.Size, d.Platform, d.Annotations)
		beside, err := remote.Referrers(r.Context().Digest(d.Digest.String()))
		check(err)
		b, err := beside.IndexManifest()
		check(err)
		for _, a := range b.Manifests { // those in the index are listed, too: they have a subject
			form(a)
		}
	}
	return list.String(), forms.String()
}

// attestationForm prints what does not differ from build to build.
func attestationForm(t *testing.T, img v1.Image) string {
	t.Helper()
	raw, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		v1.Manifest
		ArtifactType string `json:"artifactType"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "artifact %s, %s, config %s, about %s\n", m.ArtifactType, m.MediaType, m.Config.MediaType, m.Subject.Digest)
	for _, l := range m.Layers {
		layer, err := img.LayerByDigest(l.Digest)
		if err != nil {
			t.Fatal(err)
		}
		rc, err := layer.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(rc)
		rc.Close()
		if err != nil {
			t.Fatal(err)
		}
		var statement struct {
			Type          string `json:"_type"`
			PredicateType string
			Subject       []struct{ Digest map[string]string }
			Predicate     map[string]json.RawMessage
		}
		if err := json.Unmarshal(text, &statement); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "  %s %v: %s %s %v %v\n", l.MediaType, l.Annotations, statement.Type, statement.PredicateType, statement.Subject, slices.Sorted(maps.Keys(statement.Predicate)))
	}
	return b.String()
}
