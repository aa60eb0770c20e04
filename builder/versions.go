package builder

import (
	goruntime "runtime"

	"github.com/optbuild/optbuild/builder/engine"
	"github.com/optbuild/optbuild/builder/runtime"
)

// VersionInfo names the versions of what this binary was built from.
type VersionInfo struct {
	BuildKit, Runc, Go, Platform string
}

// Versions returns the versions of what this binary was built from; Runc is empty when none is embedded.
func Versions() VersionInfo {
	return VersionInfo{engine.Version(), runtime.Version(), goruntime.Version(), goruntime.GOOS + "/" + goruntime.GOARCH}
}
