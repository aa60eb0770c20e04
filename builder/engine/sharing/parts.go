package sharing

import (
	"github.com/containerd/containerd/v2/core/content"
	toc "github.com/containerd/stargz-snapshotter/estargz"
	"github.com/moby/buildkit/util/estargz"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/engine/lazypull"
)

// inParts are the labels by which package lazypull knows a cache's layer, of which it then fetches only what steps read. Nil: the layer has no table of contents.
func inParts(ref string, layers []ocispecs.Descriptor, i int) map[string]string {
	if layers[i].Annotations[toc.TOCJSONDigestAnnotation] == "" {
		return nil
	}
	labels := estargz.SnapshotLabels(ref, layers, i)
	labels[lazypull.CacheLabel] = "yes"
	return labels
}

// partsProvider is a cache's provider that says of layers how to fetch parts of them, which BuildKit looks for in providers (solver.Remote, worker/base).
type partsProvider struct {
	content.Provider
	ref string
}

func (p partsProvider) SnapshotLabels(layers []ocispecs.Descriptor, i int) map[string]string {
	return inParts(p.ref, layers, i)
}
