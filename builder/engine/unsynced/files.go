package unsynced

import (
	"context"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/session"

	"github.com/optbuild/optbuild/snapshot"
)

// files is the cache manager of COPY, ADD and WORKDIR. Nothing of them calls fsync, but to unmount an overlay that may be written to waits until all that the
// file system below has not written back yet is on the disk: of the base image just unpacked, hundreds of megabytes.
type files struct {
	cache.Manager
	s *Steps
}

func (m files) New(ctx context.Context, parent cache.ImmutableRef, g session.Group, opts ...cache.RefOption) (cache.MutableRef, error) {
	ref, err := m.Manager.New(ctx, parent, g, opts...)
	if err != nil || parent == nil || !m.s.supported() { // without a parent it is no overlay
		return ref, err
	}
	return filesRef{ref, &marks{}}, nil
}

type filesRef struct {
	cache.MutableRef
	marks *marks
}

func (r filesRef) Mount(ctx context.Context, readonly bool, g session.Group) (executor.MountableRef, error) {
	ctx, u := snapshot.WithoutSync(ctx)
	ref, err := r.MutableRef.Mount(ctx, readonly, g)
	if err != nil {
		return nil, err
	}
	return r.marks.with(ref, u), nil
}
