// Package api carries containerd's images, content and leases services over one gRPC connection: [Serve] puts them on the
// engine's server, [Client] is the other end of it. Both speak of them as [Stores].
//
//	command:  builder/store ──> Stores (Client) ──gRPC──> Stores (metadata DB) :engine
//
// The services are containerd's own, so that its clients understand them. containerd itself has a constructor for the
// content server only; the servers for images and leases exist there as plugins of its daemon and nowhere else.
//
// The package knows nothing of namespaces: whoever serves hands in stores that put one on each call.
package api

import (
	"context"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/epoch"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/containerd/v2/pkg/protobuf"
	ptypes "github.com/containerd/containerd/v2/pkg/protobuf/types"
	"github.com/containerd/containerd/v2/plugins/services/content/contentserver"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Stores are the three services that an image store consists of: names, blobs, and what keeps blobs without a name.
type Stores struct {
	Images  images.Store
	Content content.Store
	Leases  leases.Manager
}

// Serve registers s on server. A synchronous deletion of an image or a lease calls collect, which removes every blob that
// neither a name nor a lease reaches any more, before it returns.
func Serve(server grpc.ServiceRegistrar, s Stores, collect func(context.Context) error) {
	contentapi.RegisterContentServer(server, contentserver.New(s.Content))
	imagesapi.RegisterImagesServer(server, &imagesServer{store: s.Images, collect: collect})
	leasesapi.RegisterLeasesServer(server, &leasesServer{manager: s.Leases, collect: collect})
}

type imagesServer struct {
	imagesapi.UnimplementedImagesServer
	store   images.Store
	collect func(context.Context) error
}

func (s *imagesServer) Get(ctx context.Context, r *imagesapi.GetImageRequest) (*imagesapi.GetImageResponse, error) {
	image, err := s.store.Get(ctx, r.Name)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return &imagesapi.GetImageResponse{Image: imageToProto(image)}, nil
}

func (s *imagesServer) List(ctx context.Context, r *imagesapi.ListImagesRequest) (*imagesapi.ListImagesResponse, error) {
	all, err := s.store.List(ctx, r.Filters...)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	resp := &imagesapi.ListImagesResponse{}
	for _, image := range all {
		resp.Images = append(resp.Images, imageToProto(image))
	}
	return resp, nil
}

func (s *imagesServer) Create(ctx context.Context, r *imagesapi.CreateImageRequest) (*imagesapi.CreateImageResponse, error) {
	created, err := s.store.Create(withEpoch(ctx, r.SourceDateEpoch), imageFromProto(r.Image))
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return &imagesapi.CreateImageResponse{Image: imageToProto(created)}, nil
}

func (s *imagesServer) Update(ctx context.Context, r *imagesapi.UpdateImageRequest) (*imagesapi.UpdateImageResponse, error) {
	updated, err := s.store.Update(withEpoch(ctx, r.SourceDateEpoch), imageFromProto(r.Image), r.UpdateMask.GetPaths()...)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return &imagesapi.UpdateImageResponse{Image: imageToProto(updated)}, nil
}

func (s *imagesServer) Delete(ctx context.Context, r *imagesapi.DeleteImageRequest) (*ptypes.Empty, error) {
	var opts []images.DeleteOpt
	if r.Target != nil {
		target := oci.DescriptorFromProto(r.Target)
		opts = append(opts, images.DeleteTarget(&target))
	}
	err := s.store.Delete(ctx, r.Name, opts...)
	if err == nil && r.Sync {
		err = s.collect(ctx)
	}
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return &ptypes.Empty{}, nil
}

func withEpoch(ctx context.Context, t *timestamppb.Timestamp) context.Context {
	if t == nil {
		return ctx
	}
	at := protobuf.FromTimestamp(t)
	return epoch.WithSourceDateEpoch(ctx, &at)
}

type leasesServer struct {
	leasesapi.UnimplementedLeasesServer
	manager leases.Manager
	collect func(context.Context) error
}

func (s *leasesServer) Create(ctx context.Context, r *leasesapi.CreateRequest) (*leasesapi.CreateResponse, error) {
	id := leases.WithRandomID()
	if r.ID != "" {
		id = leases.WithID(r.ID)
	}
	l, err := s.manager.Create(ctx, leases.WithLabels(r.Labels), id)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return &leasesapi.CreateResponse{Lease: leaseToProto(l)}, nil
}

func (s *leasesServer) Delete(ctx context.Context, r *leasesapi.DeleteRequest) (*ptypes.Empty, error) {
	err := s.manager.Delete(ctx, leases.Lease{ID: r.ID})
	if err == nil && r.Sync {
		err = s.collect(ctx)
	}
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return &ptypes.Empty{}, nil
}

func (s *leasesServer) List(ctx context.Context, r *leasesapi.ListRequest) (*leasesapi.ListResponse, error) {
	all, err := s.manager.List(ctx, r.Filters...)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	resp := &leasesapi.ListResponse{}
	for _, l := range all {
		resp.Leases = append(resp.Leases, leaseToProto(l))
	}
	return resp, nil
}

func (s *leasesServer) AddResource(ctx context.Context, r *leasesapi.AddResourceRequest) (*ptypes.Empty, error) {
	err := s.manager.AddResource(ctx, leases.Lease{ID: r.ID}, resourceFromProto(r.Resource))
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return &ptypes.Empty{}, nil
}

func (s *leasesServer) DeleteResource(ctx context.Context, r *leasesapi.DeleteResourceRequest) (*ptypes.Empty, error) {
	err := s.manager.DeleteResource(ctx, leases.Lease{ID: r.ID}, resourceFromProto(r.Resource))
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return &ptypes.Empty{}, nil
}

func (s *leasesServer) ListResources(ctx context.Context, r *leasesapi.ListResourcesRequest) (*leasesapi.ListResourcesResponse, error) {
	all, err := s.manager.ListResources(ctx, leases.Lease{ID: r.ID})
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	resp := &leasesapi.ListResourcesResponse{}
	for _, res := range all {
		resp.Resources = append(resp.Resources, &leasesapi.Resource{ID: res.ID, Type: res.Type})
	}
	return resp, nil
}

func leaseToProto(l leases.Lease) *leasesapi.Lease {
	return &leasesapi.Lease{ID: l.ID, Labels: l.Labels, CreatedAt: protobuf.ToTimestamp(l.CreatedAt)}
}

func resourceFromProto(r *leasesapi.Resource) leases.Resource {
	return leases.Resource{ID: r.GetID(), Type: r.GetType()}
}
