package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Inspection is what `docker image inspect` tells about an image, with the manifest and the image's other platforms.
type Inspection struct {
	ID           digest.Digest `json:"Id"`
	RepoTags     []string
	RepoDigests  []string
	Created      *time.Time `json:",omitempty"`
	Author       string
	Architecture string
	Variant      string `json:",omitempty"`
	Os           string
	OsVersion    string `json:",omitempty"`
	// Size is the sum of the manifest's layers, as they are stored, in bytes.
	Size       int64
	Config     dockerspec.DockerOCIImageConfig
	RootFS     RootFS
	Descriptor ocispecs.Descriptor
	Manifest   ocispecs.Manifest
	// Manifests lists all that the target reaches, and the artifacts beside that.
	Manifests []InspectedManifest
}

// RootFS lists the digests of the layers' uncompressed tars.
type RootFS struct {
	Type   string
	Layers []digest.Digest
}

// InspectedManifest is one manifest of an image. Available says that its content is complete.
type InspectedManifest struct {
	Digest    digest.Digest
	Platform  string
	Kind      string // "image", "attestation" or "artifact"
	Available bool
	Type      string        `json:",omitempty"` // of an artifact
	About     digest.Digest `json:",omitempty"` // of what is beside the image and not in its index: the manifest or index that it refers to
}

// Inspect describes an image for a platform, or, if that is nil, for the one that fits the host best.
func (s *Store) Inspect(ctx context.Context, ref string, p *ocispecs.Platform) (Inspection, error) {
	image, err := s.get(ctx, ref)
	if err != nil {
		return Inspection{}, err
	}
	v, err := s.survey(ctx, image.Target)
	if err != nil {
		return Inspection{}, fmt.Errorf("inspect %s: %w", ref, err)
	}
	m, ok := v.main()
	if p != nil {
		if m, ok = v.find(*p); !ok {
			return Inspection{}, fmt.Errorf("inspect %s: %w %s", ref, errNoPlatform, platforms.FormatAll(*p))
		}
	}
	if !ok {
		return Inspection{}, fmt.Errorf("inspect %s: %w", ref, ErrIncomplete)
	}
	i := Inspection{ID: image.Target.Digest, Descriptor: image.Target, Manifest: m.body, RepoTags: []string{}, RepoDigests: []string{}}
	if c := m.config; c != nil {
		i.Created, i.Author, i.Architecture, i.Variant, i.Os, i.OsVersion = c.Created, c.Author, c.Architecture, c.Variant, c.OS, c.OSVersion
		i.Config, i.RootFS = c.Config, RootFS{c.RootFS.Type, c.RootFS.DiffIDs}
	}
	for _, l := range m.body.Layers {
		i.Size += l.Size
	}
	for _, m := range slices.Concat(v.manifests, v.beside) {
		im := InspectedManifest{Digest: m.desc.Digest, Kind: "image", Available: m.complete, About: m.about}
		if m.attestation {
			im.Kind = "attestation"
		} else if m.about != "" {
			im.Kind, im.Type = "artifact", m.desc.ArtifactType
		} else if m.platform.OS != "" {
			im.Platform = platforms.FormatAll(m.platform)
		}
		i.Manifests = append(i.Manifests, im)
	}
	return i, s.addNames(ctx, &i)
}

func (s *Store) addNames(ctx context.Context, i *Inspection) error {
	all, err := s.Images.List(ctx)
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	seen := map[string]bool{}
	for _, image := range all {
		named, err := reference.ParseNormalizedNamed(image.Name)
		if err != nil || image.Target.Digest != i.ID || isDangling(image.Name) {
			continue
		}
		if _, ok := named.(reference.Tagged); ok {
			i.RepoTags = append(i.RepoTags, reference.FamiliarString(named))
		}
		if d := reference.FamiliarName(named) + "@" + i.ID.String(); !seen[d] {
			seen[d] = true
			i.RepoDigests = append(i.RepoDigests, d)
		}
	}
	return nil
}
