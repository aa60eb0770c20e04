package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/defaults"
	"github.com/moby/buildkit/cmd/buildkitd/config"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"

	"github.com/optbuild/optbuild/builder/emulation"
	"github.com/optbuild/optbuild/builder/engine"
	"github.com/optbuild/optbuild/builder/housekeeping"
	"github.com/optbuild/optbuild/builder/process"
	"github.com/optbuild/optbuild/builder/registry"
	"github.com/optbuild/optbuild/builder/runtime"
	"github.com/optbuild/optbuild/cache"
)

// Main runs the engine's process, if this is one, and does not return then. cmd calls it first of all.
func Main(frontends map[string]client.BuildFunc) {
	if emulation.IsMaker() {
		emulation.RunMaker()
	}
	if emulation.IsRuntime() {
		emulation.RunRuntime()
	}
	if runtime.IsSingleID() {
		runtime.RunSingleID()
	}
	if !process.IsChild() {
		return
	}
	process.RunChild(func(ctx context.Context, e *process.Engine) (process.Served, error) {
		return serve(ctx, e, frontends)
	})
}

func serve(ctx context.Context, e *process.Engine, frontends map[string]client.BuildFunc) (process.Served, error) {
	var s Settings
	if err := json.Unmarshal(e.Settings, &s); err != nil {
		return process.Served{}, fmt.Errorf("read settings: %w", err)
	}
	logrus.SetLevel(logrus.WarnLevel)
	if s.Debug {
		logrus.SetLevel(logrus.DebugLevel)
	}
	logrus.SetFormatter(&logrus.TextFormatter{DisableColors: true, FullTimestamp: true})

	o, err := engineOptions(e, s)
	if err != nil {
		return process.Served{}, err
	}
	o.Frontends = frontends
	var eng *engine.Engine
	var keeper *housekeeping.Keeper
	start := func(o engine.Options) (*engine.Engine, error) {
		var err error
		if eng, err = openEngine(ctx, e, o); err != nil {
			return nil, err
		}
		keeper, err = housekeeping.New(eng, e.Dir.Path(), e.Dir.Cache(), s.limit())
		if err != nil {
			return nil, err
		}
		go keeper.Serve(e.Listener(process.ServiceKeeper))
		server := newServer(keeper.Solving)
		eng.Register(server)
		go server.Serve(e.Listener(process.ServiceBuildKit))
		// Without BuildKit's error interceptors: containerd's services encode their errors themselves.
		images := grpc.NewServer(messageSizes()...)
		eng.RegisterStore(images)
		go images.Serve(e.Listener(process.ServiceStore))
		return eng, nil
	}
	end := func(ctx context.Context) {
		keeper.Idle(ctx)
		closeEngine(eng)
	}
	if s.Daemon == nil {
		_, err := start(o)
		return process.Served{Idle: end, After: func() func() { return eng.Later() }}, err
	}
	var interceptors []grpc.UnaryServerInterceptor
	if s.MaxCache > 0 {
		interceptors = append(interceptors, func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			return keeper.Solving(ctx, req, info, next)
		})
	} else {
		end = func(context.Context) { closeEngine(eng) }
	}
	stopped, err := serveDaemon(ctx, e, *s.Daemon, o, start, interceptors...)
	return process.Served{Idle: func(ctx context.Context) { stopped(); end(ctx) }, After: func() func() { return eng.Later() }}, err
}

// limit is that of the cache. What a daemon keeps is the rules' of its buildkitd.toml, unless a limit was asked for.
func (s Settings) limit() cache.Limit {
	if s.Daemon != nil && s.MaxCache == 0 {
		return cache.Limit{Bytes: math.MaxInt64 / 2}
	}
	return cache.Limit{Bytes: s.MaxCache}
}

// openEngine makes the engine. What is damaged is repaired, with a line for the user; what is damaged beyond that costs the
// whole cache.
func openEngine(ctx context.Context, e *process.Engine, o engine.Options) (*engine.Engine, error) {
	eng, err := engine.New(ctx, o)
	if errors.Is(err, engine.ErrDamaged) {
		logrus.WithError(err).Error("open cache")
		if err := e.Dir.Reset(); err != nil {
			return nil, err
		}
		e.Notice("the cache is damaged: starting with an empty one; the local images are lost")
		eng, err = engine.New(ctx, o)
	}
	if err != nil {
		return nil, err
	}
	for _, line := range eng.Notices() {
		e.Notice(line)
	}
	return eng, nil
}

// closeTime bounds how long the end of an engine waits for its databases: a step that was interrupted may still use them.
const closeTime = 2 * time.Second

// closeEngine closes the engine's databases. When that does not succeed the next start examines them.
func closeEngine(eng *engine.Engine) {
	done := make(chan error, 1)
	go func() { done <- eng.Close() }()
	select {
	case err := <-done:
		if err != nil {
			logrus.WithError(err).Warn("close cache")
		}
	case <-time.After(closeTime):
		logrus.Warn("close cache: it is still in use")
	}
}

func engineOptions(e *process.Engine, s Settings) (engine.Options, error) {
	runc := s.Runtime
	if runc == "" {
		var err error
		if runc, err = runtime.Extract(filepath.Join(e.Dir.Path(), "bin")); err != nil {
			return engine.Options{}, err
		}
	}
	if e.Shape.OneID() {
		var err error
		if runc, err = runtime.SingleID(filepath.Join(e.Dir.Path(), "bin"), runc); err != nil {
			return engine.Options{}, err
		}
	}
	none := int64(0)
	o := engine.Options{
		Root:             e.Dir.Cache(),
		Runtime:          runc,
		Rootless:         e.Shape.Rootless(),
		NoProcessSandbox: e.Shape.NoPIDNamespace,
		KeepImages:       true,
		Entitlements:     []string{"network.host", "security.insecure", "device"},
		History:          &config.HistoryConfig{MaxEntries: &none},
		Stop:             e.Stop,
		Hosts:            registry.Hosts(s.Registry),
	}
	if !o.Rootless {
		o.CgroupParent = e.Dir.CgroupParent()
		o.Network.CNIConfigPath = "/etc/buildkit/cni.json"
		o.Network.CNIBinaryPath = "/opt/cni/bin"
	}
	if os.Getenv("BUILDKIT_SNAPSHOTTER") != "" {
		o.Snapshotter = os.Getenv("BUILDKIT_SNAPSHOTTER")
	}
	return o, nil
}

// newServer returns a gRPC server that carries BuildKit's typed errors and calls solving around each unary call.
func newServer(solving grpc.UnaryServerInterceptor) *grpc.Server {
	return grpc.NewServer(append(messageSizes(),
		grpc.ChainUnaryInterceptor(grpcerrors.UnaryServerInterceptor, solving),
		grpc.StreamInterceptor(grpcerrors.StreamServerInterceptor),
	)...)
}

func messageSizes() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.MaxRecvMsgSize(defaults.DefaultMaxRecvMsgSize), grpc.MaxSendMsgSize(defaults.DefaultMaxSendMsgSize)}
}
