package referrer

import (
	"context"
	"slices"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/moby/buildkit/util/attestation"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// AttestationType is the type of the artifacts in which BuildKit keeps provenance and bills of materials, one for each image manifest.
const AttestationType = "application/vnd.docker.attestation.manifest.v1+json"

// Attestations lists the artifacts with attestations about a manifest.
func Attestations(ctx context.Context, f remotes.Fetcher, subject digest.Digest) (found []ocispecs.Descriptor, err error) {
	list, err := List(ctx, f, subject)
	if err != nil {
		return nil, err
	}
	for _, d := range list {
		switch d.ArtifactType {
		case AttestationType:
		case ocispecs.MediaTypeEmptyJSON: // as a registry that does not know artifactType has it
			var m ocispecs.Manifest
			if err := FetchJSON(ctx, f, d, &m); err != nil {
				return nil, err
			}
			if m.ArtifactType != AttestationType {
				continue
			}
			d.ArtifactType = AttestationType
		default:
			continue
		}
		found = append(found, d)
	}
	return found, nil
}

// Split takes the attestations out of the entries of an index: those of images stay, and attestations come by the digests of what they are about.
func Split(entries []ocispecs.Descriptor) (images []ocispecs.Descriptor, attestations map[digest.Digest]ocispecs.Descriptor) {
	attestations = map[digest.Digest]ocispecs.Descriptor{}
	images = slices.DeleteFunc(slices.Clone(entries), func(d ocispecs.Descriptor) bool {
		about := Subject(d)
		if about != "" {
			attestations[about] = d
		}
		return about != ""
	})
	return images, attestations
}

// Subject is the digest of the manifest that an entry of an index is an attestation of; empty if it is none.
func Subject(d ocispecs.Descriptor) digest.Digest {
	if d.Annotations[attestation.DockerAnnotationReferenceType] != attestation.DockerAnnotationReferenceTypeDefault {
		return ""
	}
	return digest.Digest(d.Annotations[attestation.DockerAnnotationReferenceDigest])
}
