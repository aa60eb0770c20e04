package export

import (
	"context"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/continuity/fs"
	rootlessmountopts "github.com/moby/buildkit/util/rootless/mountopts"
	"github.com/moby/sys/userns"
)

// writeTo returns a function that writes the layer of some changes.
func writeTo(ctx context.Context, u *union, list []change, like mount.Mount) func(io.Writer) error {
	return func(w io.Writer) error { return u.writeTar(ctx, w, list, like) }
}

// writeTar writes the layer of some changes. The files are those that an overlay of the members shows; like shows how the snapshotter mounts one.
func (u *union) writeTar(ctx context.Context, out io.Writer, list []change, like mount.Mount) error {
	empty, err := os.MkdirTemp("", "optbuild-empty-") // an overlay has two lower directories at least
	if err != nil {
		return err
	}
	defer os.Remove(empty)
	var paths []string
	for _, m := range u.members {
		paths = append(paths, m.path)
	}
	options := []string{"lowerdir=" + strings.Join(append(paths, empty), ":")}
	if slices.Contains(like.Options, "userxattr") { // else it sees no opaque directories
		options = append(options, "userxattr")
	}
	view := []mount.Mount{{Type: "overlay", Source: "overlay", Options: options}}
	if userns.RunningInUserNS() {
		if view, err = rootlessmountopts.FixUp(view); err != nil {
			return err
		}
	}
	return mount.WithTempMount(ctx, view, func(root string) error {
		w := archive.NewChangeWriter(cancellable{ctx, out}, root)
		for _, c := range list {
			if c.rule != "" {
				continue
			}
			var kind fs.ChangeKind = fs.ChangeKindModify
			if c.info == nil {
				kind = fs.ChangeKindDelete
			}
			if err := w.HandleChange(kind, c.path, c.info, nil); err != nil {
				return err
			}
		}
		return w.Close()
	})
}

// cancellable is a writer that fails once its context has ended: one file may be large.
type cancellable struct {
	ctx context.Context
	io.Writer
}

func (c cancellable) Write(b []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.Writer.Write(b)
}
