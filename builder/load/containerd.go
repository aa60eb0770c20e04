package load

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/optbuild/optbuild/builder/store"
	"github.com/optbuild/optbuild/builder/store/api"
)

// connectContainerd returns the containerd at an address if somebody listens there.
func connectContainerd(ctx context.Context, address, namespace string) (*Engine, error) {
	path, ok := strings.CutPrefix(address, "unix://")
	if !ok {
		return nil, fmt.Errorf("address %q is not a socket", address)
	}
	probe, err := dialUnix(ctx, path)
	if err != nil {
		return nil, err
	}
	probe.Close()
	return &Engine{Kind: "containerd", Address: address + ", namespace " + namespace, load: func(ctx context.Context, archive io.Reader) error {
		conn, err := grpc.NewClient("passthrough:///containerd",
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dialUnix(ctx, path) }),
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(
				grpc.MaxCallRecvMsgSize(defaults.DefaultMaxRecvMsgSize), grpc.MaxCallSendMsgSize(defaults.DefaultMaxSendMsgSize)))
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = store.New(api.Client(conn), store.Options{}).Load(namespaces.WithNamespace(ctx, namespace), archive)
		return err
	}}, nil
}
