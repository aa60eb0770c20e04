package request

import (
	"cmp"
	"errors"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// OwnPlatform is what is left of --load after a build of several platforms: archives that engines load have one.
type OwnPlatform struct {
	Names    []string // in full, of the image in the local store, which has all platforms
	Platform ocispecs.Platform
}

// several reports whether a build makes images for more than one platform.
func several(s *Solve) bool { return strings.Contains(s.FrontendAttrs["platform"], ",") }

// loadOwn keeps the index in the local store, from where the engine gets what this machine runs.
func (r *Request) loadOwn(s *Solve, names []string) error {
	const flag = "load"
	if len(names) == 0 {
		return flagErrorf(flag, "", "of several platforms, the engine gets this machine's and the local store all: that needs a name, -t NAME")
	}
	own := platforms.Default()
	for p := range strings.SplitSeq(s.FrontendAttrs["platform"], ",") {
		spec, err := platforms.Parse(p)
		if err != nil || !own.Match(spec) {
			continue
		}
		if s.LoadOwn == nil || own.Less(spec, s.LoadOwn.Platform) {
			s.LoadOwn = &OwnPlatform{names, spec}
		}
	}
	if s.LoadOwn == nil {
		return flagErrorf(flag, "", "none of the platforms is this machine's, %s; load another one with `optbuild save --platform`", platforms.DefaultString())
	}
	if r.Loader == nil {
		return errors.New("no engine to load the image into is known")
	}
	open, err := r.Loader()
	if err != nil {
		return err
	}
	s.OpenEngine = open
	for _, e := range s.Exports {
		stored, err := strconv.ParseBool(cmp.Or(e.Attrs["store"], "true"))
		if e.Type == client.ExporterImage && err == nil && stored && e.Attrs["name"] != "" { // what is neither, the exporter refuses
			return nil
		}
	}
	s.Exports = append(s.Exports, r.image(names, map[string]string{}))
	return nil
}
