package nodes

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	cerrdefs "github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// inbox is a content store as a node has it: what it sends is stored, and it learns whether a blob that it knows of is there. It can't read what other builds have left, list it, or change labels.
type inbox struct{ content.Store }

var errInbox = fmt.Errorf("a node may only send what it has built: %w", cerrdefs.ErrPermissionDenied)

func (inbox) ReaderAt(context.Context, ocispecs.Descriptor) (content.ReaderAt, error) {
	return nil, errInbox
}
func (inbox) Walk(context.Context, content.WalkFunc, ...string) error { return errInbox }
func (inbox) Delete(context.Context, digest.Digest) error             { return errInbox }
func (inbox) Update(context.Context, content.Info, ...string) (content.Info, error) {
	return content.Info{}, errInbox
}
func (inbox) ListStatuses(context.Context, ...string) ([]content.Status, error) { return nil, errInbox }
func (inbox) Abort(context.Context, string) error                               { return errInbox }

func (i inbox) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	info, err := i.Store.Info(ctx, d)
	info.Labels = nil
	return info, err
}
