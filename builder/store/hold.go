package store

import (
	"context"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
)

// Hold returns the content store for images that come from elsewhere and have no name yet: what is written to it, or would be if it was not there, is kept until the end. End it with the
// error of what it was for.
func (s *Store) Hold(ctx context.Context) (content.Store, func(*error), error) {
	ctx, end, err := s.lease(ctx)
	if err != nil {
		return nil, nil, err
	}
	id, _ := leases.FromContext(ctx)
	return held{s.Content, id}, end, nil
}

// held is a content store whose writers have a lease.
type held struct {
	content.Store
	lease string
}

func (h held) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	return h.Store.Writer(leases.WithLease(ctx, h.lease), opts...)
}
