package trace

import (
	"cmp"
	"strings"
)

// maxPath bounds the bytes of a path. Nothing else does: a program that changes its directory step by step can go deeper than
// the kernel's PATH_MAX.
const maxPath = 64 << 10

// ComparePaths orders paths so that a directory comes before what is in it, and everything in it before what is beside it.
func ComparePaths(a, b string) int {
	if a == b {
		return 0
	}
	if a == "." {
		return -1
	}
	if b == "." {
		return 1
	}
	n := shared(a, b)
	switch {
	case n == len(a):
		return -1
	case n == len(b):
		return 1
	case a[n] == '/':
		return -1
	case b[n] == '/':
		return 1
	}
	return cmp.Compare(a[n], b[n])
}

// shared returns how many bytes two strings begin with alike.
func shared(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// validPath says whether a path can be the one of a name below a root: no part of it leads elsewhere.
func validPath(path string) bool {
	if path == "." {
		return true
	}
	if path == "" || len(path) > maxPath {
		return false
	}
	for len(path) > 0 {
		name, rest, more := strings.Cut(path, "/")
		if !validName(name) || more && rest == "" {
			return false
		}
		path = rest
	}
	return true
}

// validName says whether a name can be one of a directory's. Any other byte is a letter like any other.
func validName(name string) bool {
	return name != "" && name != "." && name != ".." && strings.IndexByte(name, '/') < 0 && strings.IndexByte(name, 0) < 0
}

// parent returns the directory that a path is in; the root is in itself.
func parent(path string) string {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i]
	}
	return "."
}
