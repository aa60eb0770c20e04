package profiler

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/moby/buildkit/executor"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"

	"github.com/optbuild/optbuild/builder/profile"
	"github.com/optbuild/optbuild/builder/trace"
	"github.com/optbuild/optbuild/builder/trace/view/viewer"
	"github.com/optbuild/optbuild/snapshot"
)

type watchingExecutor struct {
	executor.Executor
	p *Profiler
}

// Exec answers for a marked process, which is none; others it starts in their container.
func (e *watchingExecutor) Exec(ctx context.Context, id string, process executor.ProcessInfo) error {
	if token, _ := profile.TakeMark(process.Meta.Env); token != "" {
		return e.ask(ctx, token, process)
	}
	return e.Executor.Exec(ctx, id, process)
}

// Run runs a container, over views if it is marked. It has no error then: the end is told to who asks for it.
func (e *watchingExecutor) Run(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, process executor.ProcessInfo, started chan<- struct{}) (resourcestypes.Recorder, error) {
	token, env := profile.TakeMark(process.Meta.Env)
	if token == "" {
		return e.Executor.Run(ctx, id, root, mounts, process, started)
	}
	process.Meta.Env = env
	c, err := e.p.begin(token, id, process)
	if err != nil {
		return nil, err
	}
	end, ran := e.watch(ctx, id, root, mounts, process, started)
	if !ran && started != nil {
		close(started) // the executor has not
	}
	e.p.finish(token, c, end)
	return nil, nil
}

// watch runs a container over views. ran says that the executor was called.
func (e *watchingExecutor) watch(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, process executor.ProcessInfo, started chan<- struct{}) (end profile.End, ran bool) {
	if err := e.p.supported(); err != nil {
		return unwatched(err), false
	}
	v, err := e.p.newViews()
	if err != nil {
		return unwatched(err), false
	}
	signals, forwarded := v.signals(process.Signal)
	process.Signal = signals
	_, runErr := e.Executor.Run(snapshot.WithLower(ctx, v.lower), id, root, mounts, process, started)
	forwarded()
	files, layers, err := v.close()
	end = profile.End{Code: exitCode(runErr), Layers: layers, Files: files}
	switch {
	case end.Code < 0:
		end.Error = runErr.Error()
	case err != nil:
		end.Error = "what it looked at is not known: " + err.Error()
	}
	return end, true
}

// exitCode is that of a process which has run; -1 if the error says something else.
func exitCode(err error) int {
	var exit *gatewayapi.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode != gatewayapi.UnknownExitStatus:
		return int(exit.ExitCode)
	}
	return -1
}

// views are those of one container.
type views struct {
	p     *Profiler
	root  string // directory of the mount points
	stop  string // name that is looked up at the end of what counts, see signals
	asked atomic.Bool

	mu     sync.Mutex
	dirs   []viewer.Directory // of the layers, the topmost first
	layers *viewer.Views      // nil until the root file system is mounted
}

// stopName is a name that no layer has. Looked up through a view it leaves its place in the order.
const stopName = ".optbuild-profile-end"

func (p *Profiler) newViews() (*views, error) {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.MkdirTemp(p.dir, "")
	if err != nil {
		return nil, err
	}
	return &views{p: p, root: root, stop: stopName}, nil
}

// lower mounts views in place of the layers of the root file system, see [snapshot.LowerFunc].
func (v *views) lower(_ context.Context, _ string, lower []snapshot.Directory) (paths, options []string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.layers != nil {
		return nil, nil, errors.New("the container has two root file systems")
	}
	for i, d := range lower {
		path := filepath.Join(v.root, fmt.Sprint(i))
		if err := os.Mkdir(path, 0o700); err != nil {
			return nil, nil, err
		}
		v.dirs = append(v.dirs, viewer.Directory{Path: d.Path, Mountpoint: path})
		paths = append(paths, path)
	}
	if v.layers, err = v.p.viewer.Mount(v.dirs...); err != nil {
		return nil, nil, err
	}
	// For the same reason as under a step: without it, the layers' files would be on different devices.
	return paths, []string{"xino=on"}, nil
}

// signals passes on the signals for a process. What it looks at after the first of them is its way to stop, and not to start: the place of that in the order is marked.
func (v *views) signals(in <-chan syscall.Signal) (out <-chan syscall.Signal, wait func()) {
	if in == nil {
		return nil, func() {}
	}
	passed, ended, done := make(chan syscall.Signal), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case s, ok := <-in:
				if !ok {
					return
				}
				if !v.asked.Swap(true) {
					v.mark()
				}
				select {
				case passed <- s:
				case <-ended:
					return
				}
			case <-ended:
				return
			}
		}
	}()
	return passed, func() { close(ended); <-done }
}

func (v *views) mark() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.layers != nil && len(v.dirs) > 0 {
		_, _ = os.Lstat(filepath.Join(v.dirs[0].Mountpoint, v.stop))
	}
}

// closeTime bounds how long the end of the views is waited for.
const closeTime = 10 * time.Second

// close takes the views down and returns what was seen through them.
func (v *views) close() (files []profile.File, layers int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	v.mu.Lock()
	defer v.mu.Unlock()
	var errs []error
	if v.layers == nil {
		errs = append(errs, errors.New("its root file system does not consist of layers that can be watched: this takes the overlayfs snapshotter, and an image with files"))
	} else {
		var seen [][]trace.Seen
		seen, err = v.layers.Close(ctx)
		errs = append(errs, err)
		if err == nil {
			files, err = filesOf(v.dirs, seen, v.stop)
			errs = append(errs, err)
		}
	}
	for _, d := range v.dirs {
		errs = append(errs, os.Remove(d.Mountpoint))
	}
	errs = append(errs, os.Remove(v.root))
	return files, len(v.dirs), errors.Join(errs...)
}
