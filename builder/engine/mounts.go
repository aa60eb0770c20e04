package engine

import (
	"path/filepath"

	"github.com/moby/buildkit/session"

	"github.com/optbuild/optbuild/builder/engine/mounts"
	"github.com/optbuild/optbuild/builder/engine/replay"
)

// keepMounts lets the cache mounts of steps travel by the shared caches of their builds. What is known of mounts goes with the snapshots that they are in.
func (e *Engine) keepMounts() (err error) {
	o := mounts.Options{
		Dir:    filepath.Join(e.parts.root, "snapshots", "mounts"),
		Copied: replay.FilesOf,
		Builds: func(g session.Group) []*mounts.Build {
			if e.shared == nil {
				return nil
			}
			return e.shared.Mounts(g)
		},
	}
	if e.parts.replayer != nil {
		o.Restored = e.parts.replayer.Foreign
	}
	e.keeper, err = mounts.New(o)
	return err
}
