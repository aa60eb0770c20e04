package record

import (
	"cmp"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
)

// Layer is the record of a layer.
type Layer interface{ GetString(field string) string }

// Chains returns what machines that share a cache call the layers of a record, which come the lowest first; "" where a layer has no digest yet.
//
// A chain id is no such name by itself: BuildKit puts the digest of a layer's table of contents into it, if there is one, since files that come by the table have not been compared with the digest of the content. The machine that has
// made the layer has compressed it later, and calls it otherwise. Named knows the names of such layers; for others it returns "". A layer that is read by its twin (package lazypull) has its name in its record.
func Chains[L Layer](layers []L, named func(chain string) string) []string {
	names := make([]string, len(layers))
	var below, belowName string
	for i, l := range layers {
		chain := l.GetString(Chain)
		name := chain
		if n := cmp.Or(l.GetString(Name), named(chain)); n != "" && chain != "" {
			name = n
		} else if below != belowName && chain != "" {
			on := l.GetString(DiffID)
			if chainOf(below, on) != chain { // it has a table of its own
				on = chain
			}
			name = chainOf(belowName, on)
		}
		names[i] = name
		below, belowName = chain, name
	}
	return names
}

// ChainOf returns the id of the chain that a layer makes with what is below it, which is "" for the lowest one. The table of contents may be "".
func ChainOf(below, diffID, toc string) string {
	if toc != "" {
		diffID = chainOf(diffID, toc)
	}
	return chainOf(below, diffID)
}

func chainOf(below, layer string) string {
	if below == "" {
		return layer
	}
	return identity.ChainID([]digest.Digest{digest.Digest(below), digest.Digest(layer)}).String()
}
