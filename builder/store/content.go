package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/referrer"
)

// manifest is one image manifest that a target reaches.
type manifest struct {
	desc     ocispecs.Descriptor
	platform ocispecs.Platform // zero if neither the index nor the configuration tells
	// attestation says that this is provenance or a bill of materials about another manifest.
	attestation bool
	about       digest.Digest // of survey.beside: what the artifact is about
	// complete says that the configuration and all layers are there. The rest is zero when the manifest itself is not.
	complete bool
	body     ocispecs.Manifest
	config   *dockerspec.DockerOCIImage // nil when it is not there
}

// survey is what is there of an image.
type survey struct {
	manifests []manifest // in the order of the index
	complete  bool       // nothing at all is missing
	beside    []manifest // artifacts that are kept beside manifests and indexes; nothing of them is missing
	bytes     int64      // of the blobs that are there, each counted once
}

// images returns the image manifests that are complete.
func (v survey) images() []manifest {
	return slices.DeleteFunc(slices.Clone(v.manifests), func(m manifest) bool { return m.attestation || !m.complete })
}

// main returns the manifest that stands for the image on this machine: the complete one that fits the host best, or else
// the first one; false when none is complete.
func (v survey) main() (manifest, bool) {
	complete := v.images()
	if len(complete) == 0 {
		return manifest{}, false
	}
	host := platforms.Default()
	slices.SortStableFunc(complete, func(a, b manifest) int {
		switch {
		case host.Less(a.platform, b.platform):
			return -1
		case host.Less(b.platform, a.platform):
			return 1
		}
		return 0
	})
	return complete[0], true
}

// find returns the complete manifest for a platform.
func (v survey) find(p ocispecs.Platform) (manifest, bool) {
	match := platforms.OnlyStrict(p)
	for _, m := range v.images() {
		if match.Match(m.platform) {
			return m, true
		}
	}
	return manifest{}, false
}

// survey finds out what there is of the image at target. That something is missing is no error; that something is not what
// an image consists of is one.
func (s *Store) survey(ctx context.Context, target ocispecs.Descriptor) (survey, error) {
	w := surveyor{store: s.Content, seen: map[digest.Digest]bool{}}
	w.complete = true
	if err := w.visit(ctx, target, 0); err != nil {
		return survey{}, err
	}
	// Registries list attestations of an index beside the images that they are about, too.
	w.beside = slices.DeleteFunc(w.beside, func(a manifest) bool {
		return slices.ContainsFunc(w.manifests, func(m manifest) bool { return m.desc.Digest == a.desc.Digest })
	})
	return w.survey, nil
}

type surveyor struct {
	survey
	store content.Store
	seen  map[digest.Digest]bool // whether it is there
}

// maxDepth bounds indexes within indexes, and maxBlobs the blobs of one image.
const (
	maxDepth = 4
	maxBlobs = 10_000
)

// has looks whether a blob is there.
func (w *surveyor) has(ctx context.Context, d ocispecs.Descriptor) (bool, error) {
	if there, ok := w.seen[d.Digest]; ok {
		return there, nil
	}
	if len(w.seen) >= maxBlobs {
		return false, fmt.Errorf("image has more than %d blobs", maxBlobs)
	}
	if err := d.Digest.Validate(); err != nil {
		return false, fmt.Errorf("digest %q: %w", d.Digest, err)
	}
	info, err := w.store.Info(ctx, d.Digest)
	if err != nil && !errdefs.IsNotFound(err) {
		return false, fmt.Errorf("look for %s: %w", d.Digest, err)
	}
	w.seen[d.Digest] = err == nil
	if err == nil {
		if d.Size != info.Size {
			return false, fmt.Errorf("%s has %d bytes, not the %d that its manifest says", d.Digest, info.Size, d.Size)
		}
		w.bytes += info.Size
	} else {
		w.complete = false
	}
	return err == nil, nil
}

func (w *surveyor) visit(ctx context.Context, d ocispecs.Descriptor, depth int) error {
	there, err := w.has(ctx, d)
	if err != nil {
		return err
	}
	switch {
	case images.IsIndexType(d.MediaType):
		if depth > maxDepth {
			return fmt.Errorf("index %s: more than %d indexes within each other", d.Digest, maxDepth)
		}
		if !there {
			return nil
		}
		var index ocispecs.Index
		if err := readJSON(ctx, w.store, d, &index); err != nil {
			return err
		}
		for _, child := range index.Manifests {
			if err := w.visit(ctx, child, depth+1); err != nil {
				return err
			}
		}
		return w.visitBeside(ctx, d.Digest)
	case images.IsManifestType(d.MediaType):
		m, err := w.manifest(ctx, d, there)
		w.manifests = append(w.manifests, m)
		if err != nil || !there {
			return err
		}
		return w.visitBeside(ctx, d.Digest)
	}
	return fmt.Errorf("%s is of type %q: neither an index nor a manifest", d.Digest, d.MediaType)
}

// visitBeside looks for artifacts about a manifest or an index. One of which something is missing, or that is about something else, counts as none.
func (w *surveyor) visitBeside(ctx context.Context, about digest.Digest) error {
	for _, d := range referrer.Marked(ctx, w.store, about) {
		before := w.survey
		if _, err := w.has(ctx, d); err != nil {
			return err
		}
		m, err := w.manifest(ctx, d, true)
		if err != nil {
			return err
		}
		if !m.complete || m.body.Subject == nil || m.body.Subject.Digest != about {
			w.survey = before
			continue
		}
		m.desc.ArtifactType, m.desc.Annotations, m.about = referrer.Type(m.body), m.body.Annotations, about
		m.attestation = m.desc.ArtifactType == referrer.AttestationType
		w.beside = append(w.beside, m)
	}
	return nil
}

func (w *surveyor) manifest(ctx context.Context, d ocispecs.Descriptor, there bool) (manifest, error) {
	m := manifest{desc: d, attestation: d.Annotations["vnd.docker.reference.type"] == "attestation-manifest"}
	if d.Platform != nil {
		m.platform = platforms.Normalize(*d.Platform)
	}
	if !there {
		return m, nil
	}
	if err := readJSON(ctx, w.store, d, &m.body); err != nil {
		return m, err
	}
	m.complete = true
	for _, layer := range m.body.Layers {
		layerThere, err := w.has(ctx, layer)
		if err != nil {
			return m, err
		}
		m.complete = m.complete && layerThere
	}
	configThere, err := w.has(ctx, m.body.Config)
	if err != nil || !configThere {
		m.complete = false
		return m, err
	}
	if !images.IsConfigType(m.body.Config.MediaType) {
		return m, nil // an artifact
	}
	m.config = &dockerspec.DockerOCIImage{}
	if err := readJSON(ctx, w.store, m.body.Config, m.config); err != nil {
		return m, err
	}
	if d.Platform == nil {
		m.platform = platforms.Normalize(m.config.Platform)
	}
	return m, nil
}

// readJSON reads a blob that describes others.
func readJSON(ctx context.Context, provider content.Provider, d ocispecs.Descriptor, v any) error {
	if d.Size > maxManifestBytes {
		return fmt.Errorf("%s (%s) has %d bytes: too many", d.Digest, d.MediaType, d.Size)
	}
	b, err := content.ReadBlob(ctx, provider, d)
	if err != nil {
		return fmt.Errorf("read %s: %w", d.Digest, err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("decode %s (%s): %w", d.Digest, d.MediaType, err)
	}
	return nil
}
