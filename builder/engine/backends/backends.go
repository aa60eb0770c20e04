// Package backends has caches in clouds as BuildKit keeps them: at Azure Blob Storage (type=azblob) in every binary, at S3 (type=s3) in those that are built with it:
//
//	make build BACKENDS=s3
//
// Why is S3 not in all? Its client makes the binary 9 MB larger (58 to 67 MB), and takes a seventh more processor time at every start of every process, whether it is used or not (help, 26.7 to 30.6 ms, medians
// of 30, load 11). Azure's takes nothing that could be measured, since most of it is there for GitHub's cache. Whoever asks a binary without it for S3 is told so by builder/request, which
// knows by package builder/backend.
//
// What writes them is BuildKit's. What reads them is not: BuildKit's importers read an index into memory however large it is, and make of it whatever it says, and they make their
// clouds' clients themselves, so that nobody could stand between. Keys, contents and attributes are BuildKit's own (TestBackends builds with both).
//
// Where it is weak: the tokens that clouds' clients ask for where no key is given come by ways of their own, which are not bounded here.
package backends

import (
	"github.com/moby/buildkit/cache/remotecache"

	"github.com/optbuild/optbuild/builder/engine/chains"
)

// backend is what reads and writes a cache of one type.
type backend struct {
	exporter remotecache.ResolveCacheExporterFunc
	importer func(chains.Check) remotecache.ResolveCacheImporterFunc
}

// all are those that this binary has, by their types.
func all() map[string]backend {
	list := map[string]backend{}
	addS3(list)
	addAzblob(list)
	return list
}

// AddExporters adds what writes such caches to a map.
func AddExporters(to map[string]remotecache.ResolveCacheExporterFunc) map[string]remotecache.ResolveCacheExporterFunc {
	for kind, b := range all() {
		to[kind] = b.exporter
	}
	return to
}

// AddImporters adds what reads such caches to a map, in the wrapper that it is to have. An index that check refuses is not used.
func AddImporters(check chains.Check, wrap func(kind string, f remotecache.ResolveCacheImporterFunc) remotecache.ResolveCacheImporterFunc, to map[string]remotecache.ResolveCacheImporterFunc) map[string]remotecache.ResolveCacheImporterFunc {
	for kind, b := range all() {
		to[kind] = wrap(kind, b.importer(check))
	}
	return to
}

// given is an attribute, or what stands for it if it is not there.
func given(attrs map[string]string, key, otherwise string) string {
	if v, ok := attrs[key]; ok {
		return v
	}
	return otherwise
}
