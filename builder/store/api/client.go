package api

import (
	"context"

	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	contentproxy "github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/containerd/v2/core/images"
	leasesproxy "github.com/containerd/containerd/v2/core/leases/proxy"
	"github.com/containerd/containerd/v2/pkg/epoch"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/containerd/v2/pkg/protobuf"
	ptypes "github.com/containerd/containerd/v2/pkg/protobuf/types"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Client returns the stores that are served at the other end of conn.
func Client(conn grpc.ClientConnInterface) Stores {
	return Stores{
		Images:  imagesClient{imagesapi.NewImagesClient(conn)},
		Content: contentproxy.NewContentStore(conn),
		Leases:  leasesproxy.NewLeaseManager(leasesapi.NewLeasesClient(conn)),
	}
}

// imagesClient is an images.Store. containerd has the same in its client package, which links the APIs of containers,
// tasks, snapshots and all the rest.
type imagesClient struct{ client imagesapi.ImagesClient }

func (c imagesClient) Get(ctx context.Context, name string) (images.Image, error) {
	resp, err := c.client.Get(ctx, &imagesapi.GetImageRequest{Name: name})
	if err != nil {
		return images.Image{}, errgrpc.ToNative(err)
	}
	return imageFromProto(resp.Image), nil
}

func (c imagesClient) List(ctx context.Context, filters ...string) ([]images.Image, error) {
	resp, err := c.client.List(ctx, &imagesapi.ListImagesRequest{Filters: filters})
	if err != nil {
		return nil, errgrpc.ToNative(err)
	}
	all := make([]images.Image, len(resp.Images))
	for i, image := range resp.Images {
		all[i] = imageFromProto(image)
	}
	return all, nil
}

func (c imagesClient) Create(ctx context.Context, image images.Image) (images.Image, error) {
	resp, err := c.client.Create(ctx, &imagesapi.CreateImageRequest{Image: imageToProto(image), SourceDateEpoch: epochOf(ctx)})
	if err != nil {
		return images.Image{}, errgrpc.ToNative(err)
	}
	return imageFromProto(resp.Image), nil
}

func (c imagesClient) Update(ctx context.Context, image images.Image, fields ...string) (images.Image, error) {
	r := &imagesapi.UpdateImageRequest{Image: imageToProto(image), SourceDateEpoch: epochOf(ctx)}
	if len(fields) > 0 {
		r.UpdateMask = &ptypes.FieldMask{Paths: fields}
	}
	resp, err := c.client.Update(ctx, r)
	if err != nil {
		return images.Image{}, errgrpc.ToNative(err)
	}
	return imageFromProto(resp.Image), nil
}

func (c imagesClient) Delete(ctx context.Context, name string, opts ...images.DeleteOpt) error {
	var o images.DeleteOptions
	for _, opt := range opts {
		if err := opt(ctx, &o); err != nil {
			return err
		}
	}
	r := &imagesapi.DeleteImageRequest{Name: name, Sync: o.Synchronous}
	if o.Target != nil {
		r.Target = oci.DescriptorToProto(*o.Target)
	}
	_, err := c.client.Delete(ctx, r)
	return errgrpc.ToNative(err)
}

func epochOf(ctx context.Context) *timestamppb.Timestamp {
	if t := epoch.FromContext(ctx); t != nil {
		return protobuf.ToTimestamp(*t)
	}
	return nil
}

func imageToProto(image images.Image) *imagesapi.Image {
	return &imagesapi.Image{
		Name:      image.Name,
		Labels:    image.Labels,
		Target:    oci.DescriptorToProto(image.Target),
		CreatedAt: protobuf.ToTimestamp(image.CreatedAt),
		UpdatedAt: protobuf.ToTimestamp(image.UpdatedAt),
	}
}

func imageFromProto(image *imagesapi.Image) images.Image {
	return images.Image{
		Name:      image.GetName(),
		Labels:    image.GetLabels(),
		Target:    oci.DescriptorFromProto(image.GetTarget()),
		CreatedAt: protobuf.FromTimestamp(image.GetCreatedAt()),
		UpdatedAt: protobuf.FromTimestamp(image.GetUpdatedAt()),
	}
}
