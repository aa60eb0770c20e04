package engine

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/continuity/fs"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/executor"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/archutil"
	"github.com/moby/buildkit/util/progress"
	"github.com/moby/buildkit/worker"
	"github.com/moby/buildkit/worker/base"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/emulation"
	"github.com/optbuild/optbuild/builder/engine/derived"
	"github.com/optbuild/optbuild/builder/outcome"
)

// BuildKit runs the steps of a foreign platform as they are, which the kernel does if an emulator is registered, or with a qemu of its own build
// (buildkit-qemu-ARCH in PATH), which other builds of qemu can't replace: they don't emulate the programs that a program starts. Where there is neither, steps run in
// the user namespace of package emulation, with another executor.

// emulators are those of one engine.
type emulators struct {
	*emulation.Emulator
	// newExecutor makes the executor for steps that are emulated, when the namespace is there.
	newExecutor func() (executor.Executor, error)
}

func newEmulators(root, runtime string, newExecutor func(root, runtime string) (executor.Executor, error)) *emulators {
	e := &emulators{Emulator: emulation.New()}
	e.newExecutor = sync.OnceValues(func() (executor.Executor, error) {
		r, err := emulation.Runtime(filepath.Join(root, "emulated"), runtime, e.Namespace())
		if err != nil {
			return nil, err
		}
		return newExecutor(filepath.Join(root, "emulated", "executor"), r)
	})
	return e
}

// foreign returns the platform of a step if that is not of this machine's architecture, of which all variants are BuildKit's business.
func foreign(p *pb.Platform) (ocispecs.Platform, bool) {
	if p == nil || p.OS != "linux" {
		return ocispecs.Platform{}, false
	}
	own := platforms.DefaultSpec().Architecture
	want := platforms.Normalize(ocispecs.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant})
	return want, want.Architecture != own
}

// native are architectures of which processors of another one run the programs, if the kernel lets them.
var native = map[string]string{"386": "amd64", "arm": "arm64"}

// needed reports whether steps of a foreign platform can't run without this package.
func (e *emulators) needed(want ocispecs.Platform) bool {
	for _, have := range archutil.SupportedPlatforms(false) { // asked once: what is registered later counts for the next engine
		if platforms.Only(have).Match(want) {
			return false
		}
	}
	name := emulation.Qemu(want.Architecture)
	if name == "" {
		name = want.Architecture
	}
	_, err := exec.LookPath("buildkit-qemu-" + name)
	return err != nil
}

// emulating is a worker whose steps run under emulation, if they have to.
type emulating struct {
	worker.Worker
	base      *base.Worker
	inner     func(*base.Worker) worker.Worker
	emulators *emulators
}

// ResolveOp returns what the inner worker resolves: stock ops, since provenance looks at their type.
func (w emulating) ResolveOp(v solver.Vertex, s frontend.FrontendLLBBridge, sm *session.Manager, proxy worker.ProxyOpt) (solver.Op, error) {
	if op, ok := v.Sys().(*pb.Op); ok && op.GetExec() != nil {
		if p, ok := foreign(op.Platform); ok {
			exe := w.base.WorkerOpt.Executor
			needed := w.emulators.needed(p)
			if needed {
				exe = &emulatedExecutor{exe, w.emulators, p.Architecture, platforms.FormatAll(p)}
			}
			if needed || native[p.Architecture] != platforms.DefaultSpec().Architecture {
				exe = &tellingExecutor{exe, v.Digest().String(), platforms.FormatAll(p)}
			}
			return w.inner(derived.Worker(w.base, w.base.CacheMgr, exe)).ResolveOp(v, s, sm, proxy)
		}
	}
	return w.Worker.ResolveOp(v, s, sm, proxy)
}

// tellingExecutor tells, with the progress, that a step is emulated, whoever does it. Whether the programs really are of that platform it does not look.
type tellingExecutor struct {
	executor.Executor
	vertex, platform string
}

func (e *tellingExecutor) Run(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, process executor.ProcessInfo, started chan<- struct{}) (resourcestypes.Recorder, error) {
	if pw, ok, _ := progress.NewFromContext(ctx); ok {
		line, action := outcome.Emulated(e.vertex, e.platform)
		at := time.Now()
		_ = pw.Write(line, progress.Status{Action: action, Started: &at, Completed: &at})
		_ = pw.Close()
	}
	return e.Executor.Run(ctx, id, root, mounts, process, started)
}

// emulatedExecutor runs steps of a foreign architecture. A step that is cached or replayed needs no emulator: so what is missing is found out here.
type emulatedExecutor struct {
	executor.Executor // for what is not Run
	emulators         *emulators
	arch, platform    string
}

func (e *emulatedExecutor) Run(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, process executor.ProcessInfo, started chan<- struct{}) (resourcestypes.Recorder, error) {
	exe, err := e.prepare()
	var missing *emulation.MissingError
	if errors.As(err, &missing) {
		// A base image that is not of the platform that it is used for has programs of this machine. As with BuildKit, they run.
		if arch, aerr := startsWith(ctx, root, process.Meta); aerr == nil && arch != "" && arch != e.arch {
			exe, err = e.Executor, nil
		}
	}
	if err != nil {
		if started != nil {
			close(started)
		}
		return nil, err
	}
	return exe.Run(ctx, id, root, mounts, process, started)
}

// startsWith tells the architecture of the program that a step starts, "" if that is not clear.
func startsWith(ctx context.Context, root executor.Mount, meta executor.Meta) (arch string, err error) {
	if len(meta.Args) == 0 {
		return "", nil
	}
	mountable, err := root.Src.Mount(context.Background(), true) // not the step's: that would show views of what is watched
	if err != nil {
		return "", err
	}
	list, release, err := mountable.Mount()
	if err != nil {
		return "", err
	}
	if release != nil {
		defer func() { err = errors.Join(err, release()) }()
	}
	err = mount.WithTempMount(ctx, list, func(dir string) error {
		for _, name := range candidates(meta) {
			path, err := fs.RootPath(dir, name)
			if err != nil {
				continue
			}
			if arch, err = emulation.Architecture(path); err == nil {
				return nil
			}
		}
		return nil
	})
	return arch, err
}

// candidates are the paths that a program may have.
func candidates(meta executor.Meta) (list []string) {
	name := meta.Args[0]
	switch {
	case filepath.IsAbs(name):
		return []string{name}
	case strings.Contains(name, "/"):
		return []string{filepath.Join("/", meta.Cwd, name)}
	}
	for _, kv := range meta.Env {
		if dirs, ok := strings.CutPrefix(kv, "PATH="); ok {
			list = nil // the last one counts
			for _, dir := range filepath.SplitList(dirs) {
				list = append(list, filepath.Join("/", dir, name))
			}
		}
	}
	return list
}

func (e *emulatedExecutor) prepare() (executor.Executor, error) {
	if err := e.emulators.Prepare(e.arch, e.platform); err != nil {
		return nil, err
	}
	return e.emulators.newExecutor()
}

// Exec runs another process in the container of a step.
func (e *emulatedExecutor) Exec(ctx context.Context, id string, process executor.ProcessInfo) error {
	exe, err := e.prepare()
	if err != nil {
		return err
	}
	return exe.Exec(ctx, id, process)
}
