package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/executor"
	"github.com/moby/sys/user"

	"github.com/optbuild/optbuild/builder/trace"
	"github.com/optbuild/optbuild/builder/trace/view/viewer"
	"github.com/optbuild/optbuild/snapshot"
)

// watch is the views that one run of a step has instead of directories.
type watch struct {
	in    *inputs
	root  string // directory of the mount points
	paths []string
	views *viewer.Views // nil: not mounted
	used  []atomic.Bool // by the mounts of the step
}

// startViewer starts the process that serves views while there is still something else to do before the step that may need it.
func (r *Replayer) startViewer() {
	go func() {
		if r.supported() == nil {
			r.viewer.Start()
		}
	}()
}

func (st *step) watch(in *inputs) (w *watch, err error) {
	w = &watch{in: in, used: make([]atomic.Bool, len(in.watched))}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if w.root, err = os.MkdirTemp(st.r.views, ""); err != nil {
		return w, err
	}
	var dirs []viewer.Directory
	for i, d := range in.watched {
		path := filepath.Join(w.root, strconv.Itoa(i)) // short: see snapshot.WithLower
		if err := os.Mkdir(path, 0o700); err != nil {
			return w, err
		}
		w.paths, dirs = append(w.paths, path), append(dirs, viewer.Directory{Path: d.dir, Mountpoint: path})
	}
	st.mu.Lock()
	root := *st.root
	st.mu.Unlock()
	if paths, _ := w.lower(root.Lower); !st.r.layers.Fits(root, paths) {
		return w, errors.New("there are too many layers below it")
	}
	w.views, err = st.r.viewer.Mount(dirs...)
	return w, err
}

// context returns one in which the mount of the step's root file system has the views for lower directories.
func (w *watch) context(ctx context.Context) context.Context {
	return snapshot.WithLower(ctx, func(_ context.Context, _ string, lower []snapshot.Directory) (paths, options []string, err error) {
		paths, replaced := w.lower(lower)
		for _, i := range replaced {
			w.used[i].Store(true)
		}
		// Without xino, files of a view would be on another device than the directories that they are in: tar --one-file-system leaves such out.
		return paths, []string{"xino=on"}, nil
	})
}

// lower are the directories with views in place of those that are watched, and which views those are.
func (w *watch) lower(lower []snapshot.Directory) (paths []string, replaced []int) {
	for _, d := range lower {
		path := d.Path
		if i := slices.IndexFunc(w.in.watched, func(x watched) bool { return x.dest == "" && x.dir == d.Path }); i >= 0 {
			path = w.paths[i]
			replaced = append(replaced, i)
		}
		paths = append(paths, path)
	}
	return paths, replaced
}

// mounts are the step's mounts, with views of those that are watched.
func (w *watch) mounts(list []executor.Mount) []executor.Mount {
	list = slices.Clone(list)
	for i, d := range w.in.watched {
		if d.dest == "" {
			continue
		}
		for j := range list {
			if list[j].Dest == d.dest {
				list[j].Src = bind{w.paths[i], &w.used[i]}
			}
		}
	}
	return list
}

// closeTime bounds how long the end of a view is waited for: a view that does not end is detached.
const closeTime = 10 * time.Second

// close takes the views down and returns what was seen through each. A view that no mount was made of has seen nothing and tells nothing: that is an error.
func (w *watch) close() (seen [][]trace.Seen, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	var errs []error
	if w.views != nil {
		seen, err = w.views.Close(ctx)
		errs = append(errs, err)
		for i := range w.used {
			if !w.used[i].Load() {
				errs = append(errs, fmt.Errorf("the step was not run over the view of %s", w.in.watched[i].name))
			}
		}
	}
	for _, path := range w.paths {
		errs = append(errs, os.Remove(path))
	}
	if w.root != "" {
		errs = append(errs, os.Remove(w.root))
	}
	return seen, errors.Join(errs...)
}

// explain says of a step that failed that its views ended under it, if they did: it may have failed for that reason alone. It says so in the step's
// log, too, which is what is shown of a step that fails.
func explain(runErr, viewErr error, log io.Writer) error {
	if runErr == nil || !errors.Is(viewErr, viewer.ErrEnded) {
		return runErr
	}
	if log != nil {
		fmt.Fprintf(log, "optbuild: what was copied could not be read any more (%v): build again\n", viewErr)
	}
	return fmt.Errorf("%w: %w", runErr, viewErr)
}

// bind is a directory that is mounted into a step read-only.
type bind struct {
	path string
	used *atomic.Bool
}

func (b bind) Mount(context.Context, bool) (executor.MountableRef, error) {
	b.used.Store(true)
	return bound(b.path), nil
}

type bound string

func (b bound) Mount() ([]mount.Mount, func() error, error) {
	return []mount.Mount{{Type: "bind", Source: string(b), Options: []string{"rbind", "ro"}}}, func() error { return nil }, nil
}

func (b bound) IdentityMapping() *user.IdentityMapping { return nil }
