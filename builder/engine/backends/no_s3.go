//go:build !optbuild_s3

package backends

func addS3(map[string]backend) {}
