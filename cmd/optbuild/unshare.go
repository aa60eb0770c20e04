package main

import (
	"maps"
	"strings"

	"github.com/optbuild/optbuild/frontend"
	"github.com/optbuild/optbuild/frontend/opt"
)

// A stage is shared by the images of all platforms without having been asked for only if its lock file says that it may be. Where an image shows that this was not all, it is built again
// without; what need not run again is in the cache.

// sharedCode says so; the error has said what was found.
func sharedCode(err error) string {
	text := err.Error()
	if i := strings.Index(text, "the image for "); i >= 0 { // behind what the layers in between say of it
		text = text[i:]
	}
	text, _, _ = strings.Cut(text, ": build with ")
	return text + "; building again, for each platform (--optimize-disable=share-stages does so at once)"
}

// unshare has the build done without the pass that shares stages.
func (b *build) unshare() {
	attrs := maps.Clone(b.solve.FrontendAttrs)
	disabled := opt.ShareStages
	if d := attrs[frontend.AttrDisable]; d != "" {
		disabled += "," + d
	}
	attrs[frontend.AttrDisable] = disabled
	delete(attrs, frontend.AttrShare) // which asks for the pass
	delete(attrs, "build-arg:OPTBUILD_SHARE_STAGE")
	b.solve.FrontendAttrs = attrs
}
