//go:build optbuild_s3

package backends

import "github.com/moby/buildkit/cache/remotecache/s3"

func addS3(list map[string]backend) {
	list["s3"] = backend{s3.ResolveCacheExporterFunc(), s3.ResolveCacheImporterFunc()}
}
