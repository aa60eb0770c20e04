// Package backend says which types of caches this binary was built with, besides those that every one has. It knows nothing of the caches: package builder/engine/backends has them.
package backend

import "slices"

// Optional are the types of which a binary may have none. Each is a build tag, optbuild_TYPE, and a word of make's BACKENDS.
var Optional = []string{"s3"}

// Has reports whether this binary has an optional type.
func Has(kind string) bool { return slices.Contains(s3, kind) }
