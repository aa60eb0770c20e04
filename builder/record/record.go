// Package record names the fields of BuildKit's cache records that optbuild reads, and those that it adds. They are read with RefMetadata.GetString.
package record

// BuildKit's own (its cache/metadata.go). Records of layers have them as soon as the layer has a blob.
const (
	Chain  = "cache.chainID" // digest of the layer's content and of all layers below
	DiffID = "cache.diffID"  // digest of the layer's content
	Blob   = "cache.blob"    // digest of the layer's blob
)

// ImageRefs are the images that a layer was pulled with, as a list of texts: RefMetadata.Get reads it.
const ImageRefs = "cache.imageRefs"

// Optbuild's.
const (
	Name        = "optbuild.name"         // what machines that share a cache call the layer with all below, where that is not its chain: see Chains
	Stored      = "optbuild.stored"       // id of the stored layer that a RUN's layer is
	ContextRead = "optbuild.context-read" // not empty: the RUN has read files of the build context, see snapshot.ContextRead
)
