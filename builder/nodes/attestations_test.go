package nodes

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/outcome"
	"github.com/optbuild/optbuild/builder/referrer"
)

// TestAttested: what a node has put beside its image is taken out of its index.
func TestAttested(t *testing.T) {
	store, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	put := func(mediaType string, v any) ocispecs.Descriptor {
		t.Helper()
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		d := referrer.Descriptor(mediaType, text)
		if err := content.WriteBlob(t.Context(), store, d.Digest.String(), bytes.NewReader(text), d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	statement := func(kind string) ocispecs.Descriptor {
		return put("application/vnd.in-toto+json", map[string]any{"predicateType": kind, "subject": []string{}, "predicate": map[string]string{"of": kind}})
	}
	image := put(ocispecs.MediaTypeImageManifest, ocispecs.Manifest{})
	other := put(ocispecs.MediaTypeImageManifest, ocispecs.Manifest{ArtifactType: "x"})
	beside := put(ocispecs.MediaTypeImageManifest, ocispecs.Manifest{Layers: []ocispecs.Descriptor{statement(spdx), statement(slsa + "v1")}})
	beside.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image.Digest.String()}
	large := beside
	large.Size = referrer.MaxManifest + 1
	for _, c := range []struct {
		name    string
		entries []ocispecs.Descriptor
		want    string
	}{
		{"both", []ocispecs.Descriptor{image, beside}, fmt.Sprintf(`[sbom-0.spdx.json {"of":"%s"} provenance.json {"of":"%sv1"}]`, spdx, slsa)},
		{"nothing beside", []ocispecs.Descriptor{image}, "[]"},
		{"about another image", []ocispecs.Descriptor{other, beside}, "[]"},
		{"two images", []ocispecs.Descriptor{image, other, beside}, "it has made 2 images, not one"},
		{"no image", []ocispecs.Descriptor{beside}, "it has made 0 images, not one"},
		{"too large", []ocispecs.Descriptor{image, large}, "too many"},
	} {
		p := part{target: put(ocispecs.MediaTypeImageIndex, ocispecs.Index{Manifests: c.entries})}
		err := p.attested(t.Context(), store)
		list := []string{}
		for i, a := range p.attestations {
			list = append(list, a.file(i)+" "+string(a.text))
		}
		got := fmt.Sprint(list)
		if err != nil {
			got = err.Error()
		}
		if !strings.HasSuffix(got, c.want) || err == nil && p.target.Digest != c.entries[0].Digest {
			t.Errorf("%s: got %s of %s, want %s", c.name, got, p.target.Digest, c.want)
		}
	}

	// It goes to the engine as the only file of an image.
	d, err := predicate{slsa + "v1", []byte(`{"a":1}`)}.image(t.Context(), store, platforms.DefaultSpec(), "provenance.json")
	if err != nil {
		t.Fatal(err)
	}
	var m ocispecs.Manifest
	if err := readBlob(t.Context(), store, d, referrer.MaxManifest, &m); err != nil {
		t.Fatal(err)
	}
	layer, err := content.ReadBlob(t.Context(), store, m.Layers[0])
	if err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(bytes.NewReader(layer))
	h, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil || h.Name != "provenance.json" || string(text) != "{\n  \"a\": 1\n}" {
		t.Errorf("got %s, %q, %v", h.Name, text, err)
	}
}

// TestWord: nodes are asked for provenance only if the engine is told how to know it.
func TestWord(t *testing.T) {
	b := Build{Platforms: []string{"linux/arm64"}, Options: client.SolveOpt{
		FrontendAttrs: map[string]string{"attest:provenance": "mode=max", "attest:sbom": ""},
		Exports:       []client.ExportEntry{{Type: client.ExporterOCI}, {Type: client.ExporterImage, Attrs: map[string]string{"name": "app"}}},
	}}
	for _, word := range []string{"", "w"} {
		b.Word = word
		_, asked := b.options("linux/arm64").FrontendAttrs["attest:provenance"]
		_, sbom := b.options("linux/arm64").FrontendAttrs["attest:sbom"]
		if asked != (word != "") || !sbom {
			t.Errorf("word %q: provenance is asked for: %v, an SBOM: %v", word, asked, sbom)
		}
		for _, e := range b.Own().Exports {
			if got, ok := e.Attrs[outcome.AttrRecorded]; got != word || ok != (word != "") {
				t.Errorf("word %q: an export has %v", word, e.Attrs)
			}
		}
	}
	if b.Options.Exports[0].Attrs != nil || len(b.Options.Exports[1].Attrs) != 1 {
		t.Errorf("the caller's exports have changed: %v", b.Options.Exports)
	}
}
