// Package index makes and changes indexes at registries: what `docker buildx imagetools` does, and the joining of an image's platforms that several machines have built.
//
//	a machine for each platform:  build, push by digest ──> [Registry.Join] adds the manifest to the index that a name refers to
//	one machine:                  [Registry.Create] makes an index of images that are there; [Registry.Annotate] changes one; [Registry.Inspect] shows it
//
// Terms. An *entry* is a descriptor in an index. A *part* is what one machine has built: the entries of its platforms, and of their attestations. Platforms are told
// apart as they are after normalisation.
//
// An index that was joined has the bytes of the one that BuildKit makes of the same manifests: its entries are in the order of their platforms' names, attestations last.
//
// Several may join at the same time. change.go says why none is lost, and from what; package cache/remote has the whole argument.
//
// The package knows nothing of builds, flags or terminals.
package index

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/referrer"
)

// platform is an entry's, for comparing; "" if it has none.
func platform(d ocispecs.Descriptor) string {
	if d.Platform == nil {
		return ""
	}
	return platforms.FormatAll(platforms.Normalize(*d.Platform))
}

// union puts parts into a list of entries. An entry for the same platform is replaced, with its attestations; one that is the same keeps its annotations.
func union(entries, parts []ocispecs.Descriptor) []ocispecs.Descriptor {
	list := slices.Clone(entries)
	for _, p := range parts {
		if referrer.Subject(p) != "" {
			continue
		}
		if slices.ContainsFunc(list, func(d ocispecs.Descriptor) bool {
			return d.Digest == p.Digest && platform(d) == platform(p) && covers(d, p)
		}) {
			continue
		}
		list = slices.DeleteFunc(list, func(d ocispecs.Descriptor) bool {
			return referrer.Subject(d) == "" && (platform(d) == platform(p) && p.Platform != nil || d.Digest == p.Digest)
		})
		list = append(list, p)
	}
	for _, p := range parts {
		if referrer.Subject(p) != "" && !slices.ContainsFunc(list, func(d ocispecs.Descriptor) bool { return d.Digest == p.Digest }) {
			list = append(list, p)
		}
	}
	list = slices.DeleteFunc(list, func(d ocispecs.Descriptor) bool { // of what is no longer there
		of := referrer.Subject(d)
		return of != "" && !slices.ContainsFunc(list, func(m ocispecs.Descriptor) bool { return referrer.Subject(m) == "" && m.Digest == of })
	})
	return sorted(list)
}

// covers reports whether an entry has all annotations of another.
func covers(d, p ocispecs.Descriptor) bool {
	for k, v := range p.Annotations {
		if d.Annotations[k] != v {
			return false
		}
	}
	return true
}

func sorted(list []ocispecs.Descriptor) []ocispecs.Descriptor {
	place := map[digest.Digest]string{} // of what an attestation is about
	for _, d := range list {
		if referrer.Subject(d) == "" {
			place[d.Digest] = platform(d)
		}
	}
	slices.SortStableFunc(list, func(a, b ocispecs.Descriptor) int {
		sa, sb := referrer.Subject(a), referrer.Subject(b)
		switch {
		case sa == "" && sb == "":
			return cmp.Or(cmp.Compare(platform(a), platform(b)), cmp.Compare(a.Digest, b.Digest))
		case sa == "":
			return -1
		case sb == "":
			return 1
		}
		return cmp.Or(cmp.Compare(place[sa], place[sb]), cmp.Compare(a.Digest, b.Digest))
	})
	return list
}

// encode writes an index as BuildKit does. It is one of docker's types if all that is in it is.
func encode(x ocispecs.Index) (mediaType string, b []byte, err error) {
	x.Versioned = specs.Versioned{SchemaVersion: 2}
	if x.MediaType == "" {
		x.MediaType = ocispecs.MediaTypeImageIndex
		foreign := func(d ocispecs.Descriptor) bool { return d.MediaType != images.MediaTypeDockerSchema2Manifest }
		if len(x.Manifests) > 0 && !slices.ContainsFunc(x.Manifests, foreign) {
			x.MediaType = images.MediaTypeDockerSchema2ManifestList
		}
	}
	b, err = json.MarshalIndent(x, "", "  ")
	return x.MediaType, b, err
}

// Annotation is one of an index, or of an entry for a platform.
type Annotation struct {
	// Entry says that it belongs to the entries: to that of Platform, or to all, except attestations, if that is nil.
	Entry      bool
	Platform   *ocispecs.Platform
	Key, Value string
}

// annotate sets annotations. An empty value removes one.
func annotate(x *ocispecs.Index, list []Annotation) error {
	for _, a := range list {
		if !a.Entry {
			x.Annotations = set(x.Annotations, a)
			continue
		}
		found := false
		for i, d := range x.Manifests {
			if referrer.Subject(d) != "" || a.Platform != nil && platform(d) != platforms.FormatAll(platforms.Normalize(*a.Platform)) {
				continue
			}
			found = true
			x.Manifests[i].Annotations = set(d.Annotations, a)
		}
		if !found {
			return fmt.Errorf("annotate %s: the index has nothing for %s", a.Key, platforms.FormatAll(*cmp.Or(a.Platform, &ocispecs.Platform{})))
		}
	}
	return nil
}

func set(m map[string]string, a Annotation) map[string]string {
	m = maps.Clone(m)
	if m == nil {
		m = map[string]string{}
	}
	m[a.Key] = a.Value
	if a.Value == "" {
		delete(m, a.Key)
	}
	return m
}
