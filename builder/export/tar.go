package export

import (
	"context"
	"io"
	"slices"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/continuity/fs"
)

// writeTo returns a function that writes the layer of some changes.
func writeTo(ctx context.Context, u *union, list []change, like mount.Mount) func(io.Writer) error {
	return func(w io.Writer) error { return u.writeTar(ctx, w, list, like) }
}

// writeTar writes the layer of some changes. The files are those that an overlay of the members shows; like shows how the snapshotter mounts one.
func (u *union) writeTar(ctx context.Context, out io.Writer, list []change, like mount.Mount) error {
	if u.trees != nil {
		return writeChanges(ctx, out, list, u.trees.top())
	}
	var dirs []string
	for _, m := range u.members {
		dirs = append(dirs, m.path)
	}
	userxattr := slices.Contains(like.Options, "userxattr") // else it sees no opaque directories
	return withOverlay(ctx, dirs, userxattr, func(root string) error { return writeChanges(ctx, out, list, root) })
}

// writeChanges writes the layer of changes in a directory.
func writeChanges(ctx context.Context, out io.Writer, list []change, root string) error {
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
