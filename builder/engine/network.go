package engine

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/moby/buildkit/cmd/buildkitd/config"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/network"
	"github.com/moby/buildkit/util/network/cniprovider"
	"github.com/moby/buildkit/util/network/proxyprovider"
)

// networkProviders returns the providers for each network mode of a step, and what "auto" came to: "cni" or "host". The
// choice is buildkitd's; the proxy provider differs in that it is made when the first build needs it, because making it
// generates an RSA key.
func networkProviders(o Options) (map[pb.NetMode]network.Provider, network.ProxyProvider, string, error) {
	host := network.NewHostProvider()
	opt := cniprovider.Opt{
		Root:         o.Root,
		ConfigPath:   o.Network.CNIConfigPath,
		BinaryDir:    o.Network.CNIBinaryPath,
		PoolSize:     o.Network.CNIPoolSize,
		BridgeName:   o.Network.BridgeName,
		BridgeSubnet: o.Network.BridgeSubnet,
	}
	normal, mode, err := defaultNetwork(o.Network, opt, host)
	if err != nil {
		return nil, nil, "", err
	}
	egress := map[pb.NetMode]network.Provider{pb.NetMode_UNSET: normal, pb.NetMode_HOST: host}
	proxy := &lazyProxy{opt: proxyprovider.Opt{Root: o.Root, PoolSize: opt.PoolSize, EgressProviders: egress}}
	return map[pb.NetMode]network.Provider{
		pb.NetMode_UNSET: normal,
		pb.NetMode_HOST:  host,
		pb.NetMode_NONE:  network.NewNoneProvider(),
	}, proxy, mode, nil
}

func defaultNetwork(c config.NetworkConfig, opt cniprovider.Opt, host network.Provider) (network.Provider, string, error) {
	mode := c.Mode
	if mode == "" || mode == "auto" {
		mode = "host"
		if _, err := os.Stat(opt.ConfigPath); err == nil && opt.ConfigPath != "" {
			mode = "cni"
		}
	}
	switch mode {
	case "host":
		return host, "host", nil
	case "cni":
		p, err := cniprovider.New(opt)
		return p, "cni", err
	case "bridge":
		p, err := cniprovider.NewBridge(opt)
		return p, "cni", err
	default:
		return nil, "", fmt.Errorf("unknown network mode %q (auto, host, cni or bridge)", c.Mode)
	}
}

// lazyProxy makes the proxy provider at its first use.
type lazyProxy struct {
	opt proxyprovider.Opt

	mu sync.Mutex
	p  network.ProxyProvider
}

func (l *lazyProxy) NewProxy(ctx context.Context, cfg *network.ProxyConfig) (network.ProxyNamespace, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.p == nil {
		p, err := proxyprovider.New(l.opt)
		if err != nil {
			return nil, err
		}
		l.p = p
	}
	return l.p.NewProxy(ctx, cfg)
}

func (l *lazyProxy) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.p == nil {
		return nil
	}
	return l.p.Close()
}
