// Package engine wires BuildKit's solver, one OCI worker and its frontends together inside the calling process.
//
// What comes in is an [Options] value; what goes out is an [Engine] whose [Engine.Register] puts BuildKit's control API
// (and with it sessions, the gateway and the content store) on a gRPC server. It is the same composition that buildkitd
// makes, from the same public packages, less what a build that lives for seconds has no use for: no certificate authority
// for the proxy network until a build asks for one, no `git version` at each start, no synchronous disk writes for
// databases that are disposable.
//
// This is the only package that imports BuildKit's engine packages (worker, solver, control, executor), so that an upgrade
// of BuildKit is this folder's work. It knows nothing of processes, namespaces, locks or sockets: that is package process.
//
// Where it is weak: the worker's databases are opened without fsync. After a crash of the machine (not of the process)
// they can be damaged; package process decides from the boot id whether to throw them away.
package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	bkcache "github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/cache/remotecache"
	inlineremotecache "github.com/moby/buildkit/cache/remotecache/inline"
	localremotecache "github.com/moby/buildkit/cache/remotecache/local"
	registryremotecache "github.com/moby/buildkit/cache/remotecache/registry"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/cmd/buildkitd/config"
	"github.com/moby/buildkit/control"
	"github.com/moby/buildkit/executor/oci"
	bkfrontend "github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/frontend/gateway"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/frontend/gateway/forwarder"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/bboltcachestorage"
	"github.com/moby/buildkit/util/db/boltutil"
	"github.com/moby/buildkit/worker"
	"github.com/moby/buildkit/worker/base"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	bolt "go.etcd.io/bbolt"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"

	"github.com/optbuild/optbuild/builder/compress"
	"github.com/optbuild/optbuild/builder/engine/actionscache"
	"github.com/optbuild/optbuild/builder/engine/backends"
	"github.com/optbuild/optbuild/builder/engine/derived"
	"github.com/optbuild/optbuild/builder/engine/lazy"
	"github.com/optbuild/optbuild/builder/engine/lazypull"
	"github.com/optbuild/optbuild/builder/engine/manifests"
	"github.com/optbuild/optbuild/builder/engine/mounts"
	"github.com/optbuild/optbuild/builder/engine/sharing"
	"github.com/optbuild/optbuild/builder/engine/unsynced"
	"github.com/optbuild/optbuild/builder/export"
	"github.com/optbuild/optbuild/builder/scope"
	"github.com/optbuild/optbuild/cache"
)

// Namespace is the containerd namespace of every image, lease and blob in the engine's databases.
const Namespace = "buildkit"

// Options says what one engine is made of. Root, Runtime and Frontends are required.
type Options struct {
	// Root is the absolute directory of the engine's databases and snapshots. The caller holds a lock on it.
	Root string
	// Runtime is the absolute path of the OCI runtime (runc).
	Runtime string
	// Frontends maps names ("dockerfile.v0") to build functions that run in this process. "gateway.v0" is there, too, unless NoGateway is set.
	Frontends map[string]gwclient.BuildFunc
	// Hosts resolves registries. Nil means plain https, and http for loopback.
	Hosts docker.RegistryHosts

	// Rootless says that the process is root only inside a user namespace.
	Rootless bool
	// NoProcessSandbox runs steps in the engine's own pid namespace, for places where a fresh /proc can't be mounted.
	NoProcessSandbox bool
	// CgroupParent is the parent of the cgroups of steps. Empty: the runtime's default.
	CgroupParent string
	// Network is how steps reach the network. Mode "" or "auto" means CNI if it is configured, else the host's.
	Network config.NetworkConfig
	// DNS overrides the host's resolv.conf.
	DNS *config.DNSConfig
	// Snapshotter is "", "auto", "overlayfs", "fuse-overlayfs" or "native".
	Snapshotter string
	// Platforms are the platforms that the worker offers first; nil means the host's own.
	Platforms []ocispecs.Platform
	// Labels are added to the worker's.
	Labels map[string]string
	// AppArmorProfile and SELinux are passed on to the runtime.
	AppArmorProfile string
	SELinux         bool
	// MaxParallelism bounds the steps that run at once; 0 means no bound.
	MaxParallelism int
	// CDISpecDirs lists directories with CDI specifications; nil disables CDI.
	CDISpecDirs []string
	// CDIAutoAllowed lists the devices that steps get without the entitlement.
	CDIAutoAllowed []string

	// Entitlements that a build may ask for: "network.host", "security.insecure", "device".
	Entitlements []string
	// GCPolicy is applied by BuildKit a second after each solve; nil leaves collection to the caller.
	GCPolicy []client.PruneInfo
	// KeepImages gives exports of type "image" a local image store.
	KeepImages bool
	// History bounds the build records. Nil: BuildKit's default. MaxEntries 0 switches recording off.
	History *config.HistoryConfig
	// NoGateway switches external frontends off.
	NoGateway bool
	// GatewayRepositories restricts the images of external frontends; empty allows all.
	GatewayRepositories []string
	// ProxyNetwork makes every build use the proxy network.
	ProxyNetwork bool
	// ProvenanceEnv is added to provenance statements.
	ProvenanceEnv map[string]any
	// TraceCollector receives spans, TraceSocket offers them to steps; both may be zero.
	TraceCollector sdktrace.SpanExporter
	TraceSocket    string
	// Stop is closed when the process is asked to end. May be nil.
	Stop <-chan struct{}
}

// Engine is BuildKit's solver with one worker. Its methods may be called concurrently.
type Engine struct {
	controller *control.Controller
	worker     *base.Worker
	merger     *export.Merger
	eager      *eager
	keeper     *mounts.Keeper
	shared     *sharing.Caches
	late       *lazy.Files // nil with snapshotters that have no layers of directories
	parts      *parts
	root       string
}

// New opens (or creates) the databases below o.Root and returns an engine on them. Damage is repaired, see
// [Engine.Notices]; what can't be is an error that wraps [ErrDamaged]: the caller decides whether to reset the directory.
func New(ctx context.Context, o Options) (e *Engine, err error) {
	// bolt panics or faults on pages that are garbage.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			e, err = nil, fmt.Errorf("%w: %v\n%s", ErrDamaged, r, debug.Stack())
		}
	}()
	sessions, err := session.NewManager()
	if err != nil {
		return nil, fmt.Errorf("create session manager: %w", err)
	}
	if o.Hosts == nil {
		o.Hosts = docker.ConfigureDefaultRegistries(docker.WithPlainHTTP(docker.MatchLocalhost))
	}
	p, err := newParts(ctx, o, sessions)
	if err != nil {
		return nil, err
	}
	w, err := p.newWorker(ctx, o)
	if err != nil {
		return nil, err
	}
	if p.repair.collect {
		if err := w.GarbageCollect(ctx); err != nil {
			return nil, fmt.Errorf("%w: collect garbage: %w", ErrDamaged, err)
		}
	}
	w.CacheMgr = lazy.Plain(lazypull.Manager(w.CacheMgr, p.puller, w.LeaseManager(), &p.early))
	e = &Engine{worker: w, merger: newMerger(p.root, w), parts: p, root: o.Root}
	e.eager = newEager(e.merger, newUploads(sessions, o.Hosts, w.ContentStore()), compress.NewMemo(os.TempDir()))
	e.merger.Begin = e.eager.stopRehearsal
	if err := e.keepMounts(); err != nil {
		return nil, err
	}
	shared := sharing.New(sessions, o.Hosts, w.CacheMgr, w.ContentStore())
	e.merger.Elsewhere = shared
	e.shared, shared.Keeper = shared, e.keeper
	workers := &worker.Controller{}
	if err := workers.Add(e.steps()); err != nil {
		return nil, err
	}

	if p.replayer != nil {
		e.late = lazy.NewFiles(shared, w.CacheMgr)
		p.puller.SetTwins(shared)
		p.replayer.SetElsewhere(shared, e.late)
		w.SourceManager.Register(p.puller.Source(lazy.Source(w.ImageSource, w.CacheMgr, shared.AskedBy)))
	}

	frontends := map[string]bkfrontend.Frontend{}
	for name, build := range o.Frontends {
		if build = e.eager.frontend(build); p.puller != nil {
			build = p.puller.Frontend(build)
		}
		frontends[name] = forwarder.NewGatewayForwarder(workers.Infos(), build)
	}
	if !o.NoGateway {
		if frontends["gateway.v0"], err = gateway.NewGatewayFrontend(workers.Infos(), o.GatewayRepositories); err != nil {
			return nil, fmt.Errorf("create gateway frontend: %w", err)
		}
	}

	cacheStore, err := bboltcachestorage.NewStore(filepath.Join(o.Root, "cache.db"))
	if err != nil {
		return nil, fmt.Errorf("%w: open cache.db: %w", ErrDamaged, err)
	}
	historyDB, err := boltutil.SafeOpen(filepath.Join(o.Root, "history.db"), 0o600, boltOptions())
	if err != nil {
		return nil, fmt.Errorf("%w: open history.db: %w", ErrDamaged, err)
	}

	if e.controller, err = control.NewController(control.Opt{
		SessionManager:   sessions,
		WorkerController: workers,
		Frontends:        frontends,
		ResolveCacheExporterFuncs: backends.AddExporters(map[string]remotecache.ResolveCacheExporterFunc{
			"registry": registryremotecache.ResolveCacheExporterFunc(sessions, o.Hosts),
			"local":    localremotecache.ResolveCacheExporterFunc(sessions),
			"inline":   inlineremotecache.ResolveCacheExporterFunc(),
			"gha":      actionscache.Exporter(),
			scope.Type: shared.Exporter(),
		}),
		ResolveCacheImporterFuncs: backends.AddImporters(sharing.Bounded, sharing.Plain, map[string]remotecache.ResolveCacheImporterFunc{
			"registry": sharing.Plain("registry", manifests.Registry(sessions, w.ContentStore(), o.Hosts, sharing.Bounded)),
			"local":    sharing.Plain("local", manifests.Local(sessions, sharing.Bounded)),
			"gha":      sharing.Plain("gha", actionscache.Importer(sharing.Bounded)),
			scope.Type: shared.Importer(),
		}),
		CacheManager:   solver.NewCacheManager(ctx, "local", cacheStore, worker.NewCacheResultStorage(workers)),
		Entitlements:   o.Entitlements,
		TraceCollector: o.TraceCollector,
		MeterProvider:  metricnoop.NewMeterProvider(), // must not be nil
		HistoryDB:      historyDB,
		CacheStore:     cacheStore,
		LeaseManager:   w.LeaseManager(),
		ContentStore:   w.ContentStore(),
		HistoryConfig:  o.History,
		ProxyNetwork:   o.ProxyNetwork,
		GarbageCollect: w.GarbageCollect,
		GracefulStop:   o.Stop,
		ProvenanceEnv:  o.ProvenanceEnv,
	}); err != nil {
		return nil, fmt.Errorf("create controller: %w", err)
	}
	if p.puller != nil {
		p.puller.Started()
	}
	return e, nil
}

// steps is the worker that solves steps: BuildKit's, with those replayed and kept from syncing that the frontend has marked, and images exported with merged layers.
func (e *Engine) steps() worker.Worker {
	replaying := func(w *base.Worker) worker.Worker {
		if e.parts.replayer == nil {
			return w
		}
		return e.parts.replayer.Worker(w)
	}
	syncs := unsynced.New(e.parts.root)
	keeping := func(w *base.Worker) worker.Worker {
		return syncs.Worker(w, func(w *base.Worker) worker.Worker { return e.keeper.Worker(w, replaying) })
	}
	solving := func(w *base.Worker) worker.Worker { return emulating{keeping(w), w, keeping, e.parts.emulators} }
	with := func(m bkcache.Manager) worker.Worker {
		return solving(derived.Worker(e.worker, m, e.worker.WorkerOpt.Executor))
	}
	loading := lazy.Loading(solving(e.worker), e.worker.CacheMgr, e.shared.AskedBy)
	return e.parts.profiler.Worker(checking{exporting{compressing{dating{attesting{pushing{loading, e.eager.uploads}, e.eager.uploads}, e.worker.WorkerOpt.ContentStore}, e.eager, with}, e.merger}})
}

// Register puts BuildKit's API on s: control, gateway, tracing, and the content store (read only).
func (e *Engine) Register(s *grpc.Server) { e.controller.Register(s) }

// Prune removes cache records by the given rules, tells each to removed, and returns when what they took is free. It ends
// early, without an error, when ctx does.
func (e *Engine) Prune(ctx context.Context, removed func(cache.Record), rules ...client.PruneInfo) error {
	ch := make(chan client.UsageInfo)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for u := range ch {
			removed(record(u))
		}
	}()
	err := e.worker.Prune(ctx, ch, rules...)
	close(ch)
	<-done
	if ctx.Err() != nil {
		// Cut short before BuildKit collects: what the removed records held is still there.
		return e.CollectGarbage(context.WithoutCancel(ctx))
	}
	return err
}

// Notices are lines for the user about what was damaged and repaired when the engine started.
func (e *Engine) Notices() []string { return e.parts.repair.notices }

// Close closes the databases and seals them: the next engine need not examine them. No request may be under way.
func (e *Engine) Close() error {
	e.eager.Close()
	if e.parts.replayer != nil {
		e.parts.replayer.Close()
		e.late.Close()
	}
	e.parts.profiler.Close()
	e.parts.emulators.Close()
	e.merger.Collect()
	if err := errors.Join(e.controller.Close(), e.parts.Close()); err != nil {
		return err
	}
	for _, path := range databases(e.root, e.parts.root) {
		if err := compact(path, compactAbove); err != nil {
			return fmt.Errorf("compact %s: %w", path, err)
		}
	}
	return e.parts.writeSeal(e.root, e.parts.repair.before)
}

// Later returns a function that returns when what goes on at registries after builds has ended; nil if nothing does. It may be called when the engine is closed.
func (e *Engine) Later() func() { return e.shared.Later() }

// ErrDamaged is wrapped by errors that a reset of the state directory would cure.
var ErrDamaged = errors.New("the cache's database is damaged")

func boltOptions() *bolt.Options {
	return &bolt.Options{NoSync: true, FreelistType: bolt.FreelistMapType}
}

func processMode(o Options) oci.ProcessMode {
	if o.NoProcessSandbox {
		return oci.NoProcessSandbox
	}
	return oci.ProcessSandbox
}

// withoutGit runs f with a PATH in which BuildKit's worker finds no git: it would run `git version` at each start only in
// order to know whether the git source can be registered, which newWorker does by itself. So its warning says nothing.
func withoutGit(f func() error) error {
	level := logrus.GetLevel()
	logrus.SetLevel(min(level, logrus.ErrorLevel))
	defer logrus.SetLevel(level)
	path, had := os.LookupEnv("PATH")
	os.Setenv("PATH", "/nonexistent")
	defer func() {
		if had {
			os.Setenv("PATH", path)
		} else {
			os.Unsetenv("PATH")
		}
	}()
	return f()
}
