package plan

import (
	"io/fs"
	"path"
	"strings"

	"github.com/distribution/reference"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Facts is what is known of the world when a plan is compiled. Passes read it and do no I/O of their own; what is absent is unknown, and a
// pass that needs it refuses.
type Facts struct {
	BuildArgs map[string]string   // --build-arg
	Target    string              // --target, "" for the last stage
	Build     ocispecs.Platform   // where steps run
	Targets   []ocispecs.Platform // what is built; empty means Build
	Images    map[string]Image    // by FROM's image name, variables expanded, as written otherwise
	Named     map[string]bool     // names that --build-context replaces, images and stages, as ContextName spells them
	Context   *Context            // nil: nothing is known of the context
}

// ContextName is how BuildKit spells the name of a named context: alpine for docker.io/library/alpine:latest.
func ContextName(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return strings.TrimSuffix(reference.FamiliarString(named), ":latest")
}

// Replaced reports whether a named context stands in for the image or stage of that name.
func (f *Facts) Replaced(name string) bool {
	return len(f.Named) > 0 && name != "scratch" && name != "context" && f.Named[ContextName(name)]
}

// Image is what the compiler knows of a base image: the same for all platforms, or it is left out of Facts.
type Image struct {
	Env        []string // "PATH=/bin", the order is the image's; "PATH" is set to what is not known
	User       string
	WorkingDir string
	Shell      []string // nil: /bin/sh -c
	OnBuild    []string // triggers, run after FROM
	Assumed    bool     // from the table of official images, not from a registry
	Build      bool     // it is known to be the same on the build platform, though nothing is built for that
	Remembered bool     // from a registry, but by an earlier build
}

// Context is what is known of the build context after .dockerignore: some paths, and whether those are all.
type Context struct {
	Paths    map[string]Path // by slash path without leading slash; "." is the root
	Complete bool            // a path that is not in Paths does not exist
	Ignore   bool            // there is a .dockerignore
}

// Path is one file of the context. The zero Path, in Context.Paths, stands for one that is known to be absent.
type Path struct {
	Exists  bool
	Mode    fs.FileMode
	Link    string // a symlink's target
	Xattrs  bool   // it has extended attributes: an access control list, capabilities; known where Sniffed is
	Data    []byte // content, nil if it was not read
	Archive bool   // a file that ADD would unpack
	Sniffed bool   // Archive is known
}

// Lookup finds a path of the context; known is false if nothing is known of it. It does not follow symlinks.
func (c *Context) Lookup(name string) (p Path, known bool) {
	if c == nil {
		return Path{}, false
	}
	name = path.Clean(strings.TrimPrefix(name, "/"))
	if p, ok := c.Paths[name]; ok {
		return p, true
	}
	return Path{}, c.Complete
}
