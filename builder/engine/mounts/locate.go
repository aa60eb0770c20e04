package mounts

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	ctdmount "github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/executor"
)

// locate returns where a mount's files can be seen until release is called, and where they are by themselves: the directory of a snapshot, which outlives the mount. path is
// "" where the file system does not tell.
func locate(ctx context.Context, x executor.Mount) (visible, path string, release func() error, err error) {
	none := func() error { return nil }
	src, err := x.Src.Mount(ctx, false)
	if err != nil {
		return "", "", none, err
	}
	list, release, err := src.Mount()
	if err != nil {
		return "", "", none, err
	}
	if release == nil {
		release = none
	}
	if len(list) != 1 || list[0].Type != "bind" && !slices.Contains(list[0].Options, "rbind") {
		return "", "", release, nil
	}
	top := list[0].Source
	where, err := ctdmount.Lookup(top)
	if err != nil {
		return "", "", none, errors.Join(fmt.Errorf("look at mounts: %w", err), release())
	}
	files := top
	if where.Mountpoint == filepath.Clean(top) {
		// It has layers: an empty one below, and what was written.
		if files = ""; where.FSType == "overlay" {
			for o := range strings.SplitSeq(where.VFSOptions, ",") {
				if upper, ok := strings.CutPrefix(o, "upperdir="); ok && filepath.IsAbs(upper) {
					files = upper
				}
			}
		}
		if files == "" {
			return "", "", release, nil
		}
	}
	return filepath.Join(top, x.Selector), filepath.Join(files, x.Selector), release, nil
}
