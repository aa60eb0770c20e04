package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/core/images"
	ctdmetadata "github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins/diff/walking"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/cache/metadata"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/executor/oci"
	"github.com/moby/buildkit/executor/resources"
	"github.com/moby/buildkit/executor/runcexecutor"
	dockerfileversion "github.com/moby/buildkit/frontend/dockerfile/version"
	"github.com/moby/buildkit/session"
	containerdsnapshot "github.com/moby/buildkit/snapshot/containerd"
	"github.com/moby/buildkit/solver/llbsolver/cdidevices"
	"github.com/moby/buildkit/source/git"
	"github.com/moby/buildkit/util/leaseutil"
	"github.com/moby/buildkit/util/winlayers"
	"github.com/moby/buildkit/version"
	"github.com/moby/buildkit/worker/base"
	wlabel "github.com/moby/buildkit/worker/label"
	"github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sync/semaphore"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/optbuild/optbuild/builder/engine/ingest"
	"github.com/optbuild/optbuild/builder/engine/lazypull"
	"github.com/optbuild/optbuild/builder/engine/profiler"
	"github.com/optbuild/optbuild/builder/engine/replay"
	"github.com/optbuild/optbuild/builder/engine/unpack"
	"github.com/optbuild/optbuild/snapshot"
)

// parts are the stores below the worker: containerd's content store and metadata database, and a snapshotter.
type parts struct {
	root        string // Options.Root/runc-<snapshotter>: the same layout as buildkitd's
	snapshotter string
	db          *bolt.DB
	mdb         *ctdmetadata.DB
	images      images.Store
	snapshots   snapshots.Snapshotter
	replayer    *replay.Replayer // nil with snapshotters that have no layers of directories
	puller      *lazypull.Puller // nil with those, too
	profiler    *profiler.Profiler
	early       unpack.Early // does nothing with those
	emulators   *emulators
	repair      repair
}

func newParts(ctx context.Context, o Options, sessions *session.Manager) (*parts, error) {
	sn, err := snapshot.Choose(o.Root, o.Snapshotter)
	if err != nil {
		return nil, err
	}
	if sn.Slow != "" {
		logrus.Warnf("using the %s snapshotter: %s", sn.Name, sn.Slow)
	}
	p := &parts{root: filepath.Join(o.Root, "runc-"+sn.Name), snapshotter: sn.Name}
	if err := p.checkDatabases(o.Root); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(p.root, 0o700); err != nil {
		return nil, err
	}
	if err := p.checkSnapshots(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if p.snapshots, err = sn.New(filepath.Join(p.root, "snapshots")); err != nil {
		return nil, fmt.Errorf("open %s snapshotter: %w", sn.Name, err)
	}
	if layers, ok := p.snapshots.(*snapshot.Layers); ok {
		if p.puller, err = lazypull.New(lazypull.Options{Layers: layers, Hosts: o.Hosts, Sessions: sessions, Temporary: os.TempDir()}); err != nil {
			return nil, err
		}
		p.early.Dir = os.TempDir()
		// Traces are worth nothing without the snapshots that they are about: they go with them.
		if p.replayer, err = replay.New(filepath.Join(p.root, "snapshots", "traces"), layers); err != nil {
			return nil, err
		}
	}
	if p.profiler, err = profiler.New(filepath.Join(p.root, "snapshots", "profiles"), o.Runtime); err != nil {
		return nil, err
	}
	blobs, err := ingest.NewStore(filepath.Join(p.root, "content"))
	if err != nil {
		return nil, fmt.Errorf("open content store: %w", err)
	}
	if p.db, err = bolt.Open(filepath.Join(p.root, "containerdmeta.db"), 0o600, boltOptions()); err != nil {
		return nil, fmt.Errorf("%w: open containerdmeta.db: %w", ErrDamaged, err)
	}
	p.mdb = ctdmetadata.NewDB(p.db, blobs, map[string]snapshots.Snapshotter{sn.Name: p.snapshots})
	if err := p.mdb.Init(ctx); err != nil {
		return nil, fmt.Errorf("%w: initialise containerdmeta.db: %w", ErrDamaged, err)
	}
	if o.KeepImages {
		p.images = namespacedImages{ctdmetadata.NewImageStore(p.mdb), p.mdb.ContentStore()}
	}
	return p, nil
}

func (p *parts) Close() error {
	if p.puller != nil {
		p.puller.Close()
	}
	return errors.Join(p.snapshots.Close(), p.db.Close())
}

// content is the store that all parts of the engine read from.
func (p *parts) content() *containerdsnapshot.Store {
	store := replay.Contents(verified{p.mdb.ContentStore(), p.noteSuspect})
	if p.puller != nil {
		store = p.puller.Contents(store)
	}
	return containerdsnapshot.NewContentStore(p.early.Contents(store), Namespace)
}

func (p *parts) newWorker(ctx context.Context, o Options) (*base.Worker, error) {
	networks, proxy, mode, err := networkProviders(o)
	if err != nil {
		return nil, fmt.Errorf("set up network: %w", err)
	}
	monitor, err := resources.NewMonitor()
	if err != nil {
		return nil, fmt.Errorf("create resource monitor: %w", err)
	}
	devices, err := cdiManager(o.CDISpecDirs, o.CDIAutoAllowed)
	if err != nil {
		return nil, err
	}
	var dns *oci.DNSConfig
	if o.DNS != nil {
		dns = &oci.DNSConfig{Nameservers: o.DNS.Nameservers, Options: o.DNS.Options, SearchDomains: o.DNS.SearchDomains}
	}
	newExecutor := func(root, runtime string) (executor.Executor, error) {
		exe, err := runcexecutor.New(runcexecutor.Opt{
			Root:                root,
			CommandCandidates:   []string{runtime},
			Rootless:            o.Rootless,
			ProcessMode:         processMode(o),
			DNS:                 dns,
			ApparmorProfile:     o.AppArmorProfile,
			SELinux:             o.SELinux,
			TracingSocket:       o.TraceSocket,
			DefaultCgroupParent: o.CgroupParent,
			ResourceMonitor:     monitor,
			CDIManager:          devices,
			ProxyProvider:       proxy,
		}, networks)
		if err != nil {
			return nil, fmt.Errorf("create executor: %w", err)
		}
		if p.puller != nil {
			return p.puller.Executor(exe), nil
		}
		return exe, nil
	}
	exe, err := newExecutor(filepath.Join(p.root, "executor"), o.Runtime)
	if err != nil {
		return nil, err
	}
	p.emulators = newEmulators(p.root, o.Runtime, newExecutor)
	md, err := openMetadata(filepath.Join(p.root, "metadata_v2.db"))
	if err != nil {
		return nil, err
	}
	if err := p.checkRecords(ctx, md); err != nil {
		return nil, err
	}
	id, err := base.ID(p.root)
	if err != nil {
		return nil, fmt.Errorf("read worker id: %w", err)
	}
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "unknown"
	}
	labels := map[string]string{
		wlabel.Executor:       "oci",
		wlabel.Snapshotter:    p.snapshotter,
		wlabel.Hostname:       hostname,
		wlabel.Network:        mode,
		wlabel.OCIProcessMode: processMode(o).String(),
		wlabel.SELinuxEnabled: strconv.FormatBool(o.SELinux),
	}
	if o.AppArmorProfile != "" {
		labels[wlabel.ApparmorProfile] = o.AppArmorProfile
	}
	maps.Copy(labels, o.Labels)

	content := p.content()
	unpack.Register()
	applier := winlayers.NewFileSystemApplierWithWindows(content, p.early.Applier(apply.NewFileSystemApplier(content)))
	opt := base.WorkerOpt{
		ID:     id,
		Root:   p.root,
		Labels: labels,
		BuildkitVersion: client.BuildkitVersion{
			Package: version.Package, Version: Version(), Revision: version.Revision, DockerfileVersion: dockerfileversion.Version(),
		},
		GCPolicy:         o.GCPolicy,
		MetadataStore:    md,
		NetworkProviders: networks,
		ProxyProvider:    proxy,
		Executor:         exe,
		Snapshotter:      containerdsnapshot.NewSnapshotter(p.snapshotter, p.mdb.Snapshotter(p.snapshotter), Namespace, nil),
		ContentStore:     content,
		Applier:          applier,
		Differ:           replay.Comparer(winlayers.NewWalkingDiffWithWindows(content, walking.NewWalkingDiff(content))),
		ImageStore:       p.images,
		Platforms:        o.Platforms,
		LeaseManager:     leaseutil.WithNamespace(ctdmetadata.NewLeaseManager(p.mdb), Namespace),
		GarbageCollect:   p.mdb.GarbageCollect,
		RegistryHosts:    o.Hosts,
		MountPoolRoot:    filepath.Join(p.root, "cachemounts"),
		ResourceMonitor:  monitor,
		CDIManager:       devices,
	}
	if p.puller != nil {
		opt.Snapshotter = p.puller.Snapshotter(opt.Snapshotter, opt.LeaseManager)
		opt.LeaseManager = leaseutil.WithNamespace(lazypull.Leases(ctdmetadata.NewLeaseManager(p.mdb), p.snapshotter), Namespace)
	}
	if len(opt.Platforms) == 0 {
		opt.Platforms = []v1.Platform{platforms.Normalize(platforms.DefaultSpec())}
	}
	if o.MaxParallelism > 0 {
		opt.ParallelismSem = semaphore.NewWeighted(int64(o.MaxParallelism))
	}

	var w *base.Worker
	if err := withoutGit(func() error { w, err = base.NewWorker(ctx, opt); return err }); err != nil {
		return nil, fmt.Errorf("create worker: %w", err)
	}
	if p.puller != nil {
		if why := p.puller.Dropped(); why != nil {
			p.repair.note("layers that were fetched in part can't be mounted any more ("+why.Error()+")", "they are fetched, and what was made on them is made again")
			p.repair.collect = true
		}
	}
	if _, err := exec.LookPath("git"); err == nil {
		if w.GitSource, err = git.NewSource(git.Opt{CacheAccessor: w.CacheMgr, RegistryHosts: o.Hosts}); err != nil {
			return nil, fmt.Errorf("create git source: %w", err)
		}
		w.SourceManager.Register(w.GitSource)
	}
	return w, nil
}

// openMetadata opens BuildKit's record store without fsync: its constructor has no option for that, but its database is
// within reach.
func openMetadata(path string) (*metadata.Store, error) {
	md, err := metadata.NewStore(path)
	if err != nil {
		return nil, fmt.Errorf("%w: open metadata_v2.db: %w", ErrDamaged, err)
	}
	if db, ok := md.DB().(*bolt.DB); ok {
		db.NoSync = true
	}
	return md, nil
}

func cdiManager(dirs, autoAllowed []string) (*cdidevices.Manager, error) {
	if len(dirs) == 0 {
		return nil, nil
	}
	c, err := cdi.NewCache(cdi.WithSpecDirs(dirs...))
	if err == nil {
		err = c.Refresh()
	}
	if err != nil {
		return nil, fmt.Errorf("read CDI specifications: %w", err)
	}
	for dir, errs := range c.GetErrors() {
		if _, err := os.Stat(dir); err != nil {
			continue // the default directories need not exist
		}
		logrus.Warnf("read CDI specifications in %s: %v", dir, errors.Join(errs...))
	}
	return cdidevices.NewManager(c, autoAllowed), nil
}
