package referrer

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Label is that of an image's manifest in a content store which a build has left an attestation beside: its digest. containerd's collector keeps what labels with this prefix name.
const Label = "containerd.io/gc.ref.content.attestation"

// keptLabel is the prefix of labels for artifacts that came from elsewhere. It is containerd's own (images.ChildGCLabels); a part of the artifact's digest follows.
const keptLabel = "containerd.io/gc.ref.content.referrer.sha256."

// Mark notes in a content store that a build has left an attestation beside a manifest. It takes the place of an older one.
func Mark(ctx context.Context, store content.Manager, manifest, attestation digest.Digest) error {
	return label(ctx, store, manifest, Label, attestation)
}

// Keep notes in a content store that a manifest or an index has an artifact beside it, besides others.
func Keep(ctx context.Context, store content.Manager, manifest, artifact digest.Digest) error {
	return label(ctx, store, manifest, keptLabel+artifact.Encoded()[:12], artifact)
}

func label(ctx context.Context, store content.Manager, manifest digest.Digest, key string, artifact digest.Digest) error {
	if _, err := store.Update(ctx, content.Info{Digest: manifest, Labels: map[string]string{key: artifact.String()}}, "labels."+key); err != nil {
		return fmt.Errorf("note what is beside %s: %w", manifest, err)
	}
	return nil
}

// Marked are the artifacts that a manifest or an index has beside it in a content store, in the order of their digests.
func Marked(ctx context.Context, store content.Manager, manifest digest.Digest) (list []ocispecs.Descriptor) {
	info, err := store.Info(ctx, manifest)
	if err != nil {
		return nil
	}
	for key, value := range info.Labels {
		d, err := digest.Parse(value)
		if key != Label && !strings.HasPrefix(key, keptLabel) || err != nil || slices.ContainsFunc(list, func(m ocispecs.Descriptor) bool { return m.Digest == d }) {
			continue
		}
		if info, err := store.Info(ctx, d); err == nil {
			list = append(list, ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageManifest, Digest: d, Size: info.Size})
		}
	}
	slices.SortFunc(list, func(a, b ocispecs.Descriptor) int { return strings.Compare(a.Digest.String(), b.Digest.String()) })
	return list
}

// Type is the type of an artifact, as a list of referrers has it (OCI's distribution specification); empty if the manifest is about no other one.
func Type(m ocispecs.Manifest) string {
	switch {
	case m.Subject == nil:
		return ""
	case m.ArtifactType != "":
		return m.ArtifactType
	}
	return m.Config.MediaType
}
