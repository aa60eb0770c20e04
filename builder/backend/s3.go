//go:build optbuild_s3

package backend

var s3 = []string{"s3"}
