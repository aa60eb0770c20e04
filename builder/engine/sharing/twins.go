package sharing

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/engine/lazypull"
	"github.com/optbuild/optbuild/cache/remote"
)

// kindTwin is the kind of entries that say where parts of a base image's layer can be had: their blob is another one with the same content, and a table of contents (package lazypull: Twin).
const (
	kindTwin      = "twin"
	mediaTypeTwin = ocispecs.MediaTypeImageLayerZstd

	noteTwinOf = "of" // the base image's blob, for people
)

// maxTwins is how many entries of a layer are looked at.
const maxTwins = 8

// twinKey is the key of a layer whose content has a digest.
func twinKey(diffID string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "optbuild twin 1\n%q\n", diffID))
	return hex.EncodeToString(sum[:])
}

var _ lazypull.Elsewhere = (*Caches)(nil)

// Twin returns a twin that a cache has. There is no use for one of a blob that is here.
func (c *Caches) Twin(ctx context.Context, sessions []string, diffID string, blob ocispecs.Descriptor) (lazypull.Twin, bool) {
	for _, b := range c.of(sessions, false) {
		for _, r := range b.readings() {
			found := r.index.Find(kindTwin, twinKey(diffID))
			for _, e := range found[:min(len(found), maxTwins)] {
				t, err := r.twin(e, diffID, blob)
				if err != nil {
					r.store.warn(fmt.Sprintf("the twin of layer %s is not used: %v", blob.Digest, err))
					r.store.tell(ctx)
					continue
				}
				if _, err := c.content.Info(ctx, blob.Digest); err == nil {
					return lazypull.Twin{}, false
				}
				return t, true
			}
		}
	}
	return lazypull.Twin{}, false
}

// twin reads an entry, as far as it can be checked: what is in the blob is compared with its table when it is read, chunk by chunk.
func (r reading) twin(e remote.Entry, diffID string, of ocispecs.Descriptor) (t lazypull.Twin, err error) {
	toc, err := digest.Parse(e.Note[noteTOC])
	switch {
	case err != nil:
		return t, fmt.Errorf("its table: %w", err)
	case e.Note[noteDiffID] != diffID:
		return t, fmt.Errorf("it is one of %q", e.Note[noteDiffID])
	case e.Blob.MediaType != mediaTypeTwin:
		return t, fmt.Errorf("it is %q", e.Blob.MediaType)
	case e.Blob.Size <= 0 || e.Blob.Size > mostOfTwin(of.Size):
		return t, fmt.Errorf("it has %d bytes, and the layer %d", e.Blob.Size, of.Size)
	}
	d := bare(e.Blob)
	d.Annotations = map[string]string{estargz.TOCJSONDigestAnnotation: toc.String()}
	t = lazypull.Twin{TOC: toc, Labels: inParts(r.store.ref(), []ocispecs.Descriptor{d}, 0)}
	maps.Copy(t.Labels, lazypull.TwinLabels(of.Digest, d.Size))
	return t, nil
}

// mostOfTwin is how large a twin may be. Layers that were compressed very well become larger by their tables; one that is much larger helps nobody.
func mostOfTwin(bytes int64) int64 { return 2*bytes + 16<<20 }
