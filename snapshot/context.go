package snapshot

import "context"

// Prepared describes a snapshot that was made for writing.
type Prepared struct {
	// Key and Parent are Layers' names of the snapshot and of what it is made on; Parent is empty when there is nothing below.
	Key, Parent string
	// Directory is where the files will be that are written.
	Directory string
	// Lower are the directories below, the topmost first.
	Lower []Directory
}

type preparedKey struct{}

// WithPrepared returns a context with which Prepare calls f. containerd's metadata database and BuildKit's snapshotter pass
// it on; in this way their callers learn the inner key of the snapshot that they get. f is called before Prepare returns.
func WithPrepared(ctx context.Context, f func(Prepared)) context.Context {
	return context.WithValue(ctx, preparedKey{}, f)
}

type lowerKey struct{}

// LowerFunc says what to mount in place of the lower directories of the snapshot key, see WithLower.
type LowerFunc func(ctx context.Context, key string, lower []Directory) (paths []string, options []string, err error)

// WithLower returns a context with which Mounts asks f what the lower directories of an overlay shall be. f gets those that it
// consists of, the topmost first, and returns those to be used in their place, and options to be added to the mount ("xino=on").
// No paths mean that nothing is to be changed. f is not called for what is mounted for reading only, nor for a snapshot
// without a parent, which is a bind mount and no overlay.
//
// The kernel takes one page of options: Fits tells beforehand whether they are too many. Paths should be below the snapshotter's
// root, where their names are shortened, and must have neither colons nor commas in them.
func WithLower(ctx context.Context, f LowerFunc) context.Context {
	return context.WithValue(ctx, lowerKey{}, f)
}
