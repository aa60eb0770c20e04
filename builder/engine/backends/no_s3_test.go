//go:build !optbuild_s3

package backends

func addS3Cloud(map[string]cloud) {}
