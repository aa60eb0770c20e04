package nodes

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	solverresult "github.com/moby/buildkit/solver/result"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/outcome"
	"github.com/optbuild/optbuild/builder/referrer"
)

// A node that is asked for provenance or a bill of materials puts it beside its image, in an index, as a statement about that image's digest. The image that the engine exports in the end may be
// another one, such as with merged layers. So what the node says is taken out of its statement, as a file, and the engine's exporter makes a statement of it about the image that it has exported.

// predicate is what a statement says.
type predicate struct {
	kind string // its type, a URL
	text []byte // JSON
}

const (
	slsa = "https://slsa.dev/provenance/" // the version follows
	spdx = "https://spdx.dev/Document"
	// maxStatement bounds a statement. A bill of materials that lists all files of a large image has some 10 MB.
	maxStatement = 64 << 20
)

// file is the name that it has, among others of the image, where attestations are files: that of BuildKit's.
func (p predicate) file(i int) string {
	switch {
	case p.provenance():
		return "provenance.json"
	case p.kind == spdx:
		return fmt.Sprintf("sbom-%d.spdx.json", i)
	}
	return fmt.Sprintf("attestation-%d.json", i)
}

func (p predicate) provenance() bool { return strings.HasPrefix(p.kind, slsa) }

// attested takes an index apart: the image becomes the target.
func (p *part) attested(ctx context.Context, store content.Store) error {
	var index ocispecs.Index
	if err := readBlob(ctx, store, p.target, referrer.MaxManifest, &index); err != nil {
		return err
	}
	images, statements := referrer.Split(index.Manifests)
	if len(images) != 1 {
		return fmt.Errorf("it has made %d images, not one", len(images))
	}
	p.target = images[0]
	a, ok := statements[p.target.Digest]
	if !ok {
		return nil
	}
	var m ocispecs.Manifest
	if err := readBlob(ctx, store, a, referrer.MaxManifest, &m); err != nil {
		return err
	}
	for _, l := range m.Layers {
		var statement struct {
			PredicateType string
			Predicate     json.RawMessage
		}
		if err := readBlob(ctx, store, l, maxStatement, &statement); err != nil {
			return err
		}
		p.attestations = append(p.attestations, predicate{statement.PredicateType, statement.Predicate})
	}
	return nil
}

func readBlob(ctx context.Context, store content.Provider, d ocispecs.Descriptor, limit int64, v any) error {
	if d.Size > limit {
		return fmt.Errorf("%s has %d bytes: too many", d.Digest, d.Size)
	}
	text, err := content.ReadBlob(ctx, store, d)
	if err == nil {
		err = json.Unmarshal(text, v)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", d.Digest, err)
	}
	return nil
}

// attest gives the result of the engine what the node has recorded. It comes as a file of an image: definitions are bounded, and could not hold it.
func (p *part) attest(ctx context.Context, c gwclient.Client, res *gwclient.Result, platform string, spec ocispecs.Platform, b Build) error {
	for i, said := range p.attestations {
		name := said.file(i)
		file, err := said.image(ctx, b.Store, spec, name)
		if err != nil {
			return fmt.Errorf("keep its %s: %w", name, err)
		}
		held, err := take(ctx, c, file, spec, "["+platform+"] "+name+" from "+p.address)
		if err != nil {
			return err
		}
		// Without the name of the core document BuildKit leaves a bill of materials as it is: the node has noted layers in it.
		metadata := map[string][]byte{solverresult.AttestationReasonKey: []byte(solverresult.AttestationReasonSBOM)}
		if said.provenance() {
			metadata = map[string][]byte{solverresult.AttestationReasonKey: []byte(solverresult.AttestationReasonProvenance), outcome.RecordedKey: []byte(b.Word)}
		}
		res.AddAttestation(platform, gwclient.Attestation{Kind: gatewaypb.AttestationKind_InToto, Ref: held.Ref, Path: name, Metadata: metadata,
			InToto: solverresult.InTotoAttestation{PredicateType: said.kind}})
	}
	return nil
}

// image writes an image with the predicate as its only file.
func (p predicate) image(ctx context.Context, store content.Store, platform ocispecs.Platform, name string) (ocispecs.Descriptor, error) {
	var text, files bytes.Buffer
	if err := json.Indent(&text, p.text, "", "  "); err != nil { // as the engine writes its own
		return ocispecs.Descriptor{}, err
	}
	w := tar.NewWriter(&files)
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(text.Len())})
	if err == nil {
		_, err = w.Write(text.Bytes())
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return ocispecs.Descriptor{}, err
	}
	put := func(mediaType string, blob []byte) (ocispecs.Descriptor, error) {
		d := referrer.Descriptor(mediaType, blob)
		err := content.WriteBlob(ctx, store, "optbuild-attestation-"+d.Digest.String(), bytes.NewReader(blob), d)
		if errdefs.IsAlreadyExists(err) {
			err = nil
		}
		return d, err
	}
	layer, err := put(ocispecs.MediaTypeImageLayer, files.Bytes())
	if err != nil {
		return layer, err
	}
	putJSON := func(mediaType string, v any) (ocispecs.Descriptor, error) {
		blob, err := json.Marshal(v)
		if err != nil {
			return ocispecs.Descriptor{}, err
		}
		return put(mediaType, blob)
	}
	config, err := putJSON(ocispecs.MediaTypeImageConfig, ocispecs.Image{Platform: platform, RootFS: ocispecs.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}}})
	if err != nil {
		return config, err
	}
	return putJSON(ocispecs.MediaTypeImageManifest, ocispecs.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest,
		Config: config, Layers: []ocispecs.Descriptor{layer}})
}
