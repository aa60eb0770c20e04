package backends

import "github.com/moby/buildkit/cache/remotecache/azblob"

func addAzblob(list map[string]backend) {
	list["azblob"] = backend{azblob.ResolveCacheExporterFunc(), azblob.ResolveCacheImporterFunc()}
}
