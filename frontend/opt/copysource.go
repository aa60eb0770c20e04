package opt

import (
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"

	"github.com/optbuild/optbuild/frontend/plan"
)

// sourceKind is what a source of COPY or ADD is known to be.
type sourceKind int

const (
	unknownSource sourceKind = iota
	plainFile                // a regular file that ADD does not unpack
	packedFile               // an archive
	unreadFile               // a regular file; whether it is an archive is not known
	directory
	linkSource  // a symlink: BuildKit follows it
	otherSource // a device, a pipe
	absentSource
	remoteSource // a URL or a git repository
)

// contextName is a source's path in the context as BuildKit reads it: it stays below the root whatever it says.
func contextName(src string) string {
	return path.Join(".", strings.TrimPrefix(path.Clean("/"+src), "/"))
}

// sources are the files of the context that an expanded source stands for, with what they are.
func sources(c *plan.Context, src string) map[string]sourceKind {
	if remote(src) {
		return map[string]sourceKind{src: remoteSource}
	}
	name := contextName(src)
	if !hasWildcard(name) {
		return map[string]sourceKind{name: kindOf(c, name)}
	}
	if c == nil || !c.Complete {
		return map[string]sourceKind{name: unknownSource}
	}
	found := map[string]sourceKind{}
	for p := range c.Paths {
		if ok, _ := filepath.Match(name, p); ok {
			found[p] = kindOf(c, p)
		}
	}
	return found
}

func kindOf(c *plan.Context, name string) sourceKind {
	if name == "." {
		return directory
	}
	p, known := c.Lookup(name)
	switch {
	case !known:
		return unknownSource
	case !p.Exists:
		return absentSource
	case p.Mode.IsDir():
		return directory
	case p.Mode&fs.ModeSymlink != 0:
		return linkSource
	case !p.Mode.IsRegular():
		return otherSource
	case !p.Sniffed:
		return unreadFile
	case p.Archive:
		return packedFile
	}
	return plainFile
}

func remote(src string) bool {
	if strings.HasPrefix(src, "http://") || strings.HasPrefix(src, "https://") {
		return true
	}
	ref, git, err := dfgitutil.ParseGitRef(src)
	return git || err == nil && !ref.IndistinguishableFromLocal
}

func hasWildcard(name string) bool { return strings.ContainsAny(name, `*?[\`) }
