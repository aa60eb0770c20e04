// Package view shows a directory, a layer of an overlay mount, exactly as it is, and notes what is asked about it.
//
// What comes in is a layer's directory; what goes out is, for each name that the kernel asked about, whether it was there, and
// whether it was opened or listed ([trace.Seen]). The package knows nothing of steps, of overlay mounts, or of what is concluded.
//
//	RUN ──> overlayfs ──┬── upper, native
//	                    ├── a lower that is not watched, native
//	                    └── a lower that is watched: FUSE ──> this package ──> the layer's directory
//
// The kernel can't answer for the layer without asking: not for a static binary, not for io_uring, not for a name that is missing.
// That holds because of the settings with which a view is mounted. README.md has each of them with its reason, the table of all
// kinds of access with how they are seen, and what was measured.
//
// Everything fails closed: an answer that does not come from the layer (an I/O error, no file descriptor left, a server that died)
// makes [View.Seen] return an error, and its caller counts everything as read.
package view

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/builder/trace"
)

// Options of a view. The zero value is good for a step with a single view.
type Options struct {
	Order    *atomic.Uint32            // counts the first touches of names, in all the views of one step; nil: a counter of its own
	Modified func(time.Time) time.Time // what is shown for a time of modification; nil: the time itself
	// Silent keeps this process from asking the view anything: if it were killed meanwhile, it would never end (see README.md). Another
	// process has to call [Alive] before Close.
	Silent bool
}

// View is a mounted view. Its methods may be called concurrently.
type View struct {
	mountpoint string
	modified   func(time.Time) time.Time
	// directory is the size of all directories that are shown: that of an empty one in the mount point's file system. Their own sizes tell of
	// names that nobody looked up; another file system's would be another one than a step sees without a view (tmpfs: 0 blocks).
	directory struct{ bytes, blocks uint64 }
	silent    bool
	tree      *tree
	files     *backing
	server    *fuse.Server

	done    chan struct{} // closed when the server has ended
	closing atomic.Bool   // the server may end

	closed    sync.Mutex // held by Close
	unmounted bool

	mu     sync.Mutex
	broken error // the first reason why the record may be incomplete
}

const (
	fileSystemType = "optbuild" // shown in /proc/mounts as fuse.optbuild
	readBytes      = 512 << 10  // of the largest request to read: with its header it must fit into a pipe, which may have 1 MiB
	aliveWait      = 10 * time.Second
	defaultWait    = 5 * time.Second // for Close, when its context has no deadline
	forcedWait     = 2 * time.Second // for a server whose connection was broken
)

// Mount shows the directory dir at mountpoint, an empty directory. Both have to stay until Close, and dir must not change.
//
// The process that calls it serves the view: it must not execute a program, nor start one in a working directory, that lies
// in the view or in an overlay above it. The engine has its views served by a process of their own: package viewer.
func Mount(dir, mountpoint string, o Options) (*View, error) {
	mountpoint, err := filepath.Abs(mountpoint)
	if err != nil {
		return nil, fmt.Errorf("mount view of %s: %w", dir, err)
	}
	var empty unix.Stat_t
	if err := unix.Stat(mountpoint, &empty); err != nil {
		return nil, fmt.Errorf("mount view at %s: %w", mountpoint, err)
	}
	files, err := openBacking(dir)
	if err != nil {
		return nil, fmt.Errorf("mount view of %s: %w", dir, err)
	}
	if o.Order == nil {
		o.Order = new(atomic.Uint32)
	}
	v := &View{mountpoint: mountpoint, modified: o.Modified, silent: o.Silent, tree: newTree(o.Order), files: files, done: make(chan struct{})}
	v.directory.bytes, v.directory.blocks = uint64(empty.Size), uint64(empty.Blocks)
	// Whoever mounts an overlay on the view looks at its root, and go-fuse answers for one name by itself: see reservedName.
	if _, err := files.stat(v.tree.root, reservedName); !errors.Is(err, unix.ENOENT) {
		files.close(v.tree.root)
		return nil, fmt.Errorf("mount view of %s: it has a file %s: %w", dir, reservedName, unix.EEXIST)
	}
	v.server, err = fuse.NewServer(newFileSystem(v), mountpoint, mountOptions(v))
	if err != nil {
		files.close(v.tree.root)
		if strings.HasPrefix(err.Error(), "init:") { // go-fuse leaves the mount behind when it can't come to terms with the kernel
			unix.Unmount(mountpoint, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		}
		return nil, fmt.Errorf("mount view of %s at %s: %w", dir, mountpoint, err)
	}
	go func() {
		v.server.Serve()
		if !v.closing.Load() {
			v.fail(errors.New("its server ended before it was closed"))
		}
		close(v.done)
	}()
	if !v.silent {
		// This makes the kernel ask whether files can be polled, and never again after the answer. Go's os.Open polls; if that came from
		// this very process, there might be no thread left to answer.
		err = v.server.WaitMount()
	}
	if missing := requiredCapabilities &^ v.server.KernelSettings().Flags64(); err == nil && missing != 0 {
		err = fmt.Errorf("the kernel's FUSE lacks the features %#x", missing)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mount view of %s: %w", dir, err), v.Close(context.Background()))
	}
	v.readAhead()
	return v, nil
}

// readAhead makes the kernel read ahead as much as one request can hold; its default for FUSE is 128 KiB. Only root outside of user
// namespaces may do that; without it, reading large files takes more requests.
func (v *View) readAhead() {
	var st unix.Statx_t // DONT_SYNC: the kernel answers without asking
	if err := ignoringEINTR(func() error { return unix.Statx(unix.AT_FDCWD, v.mountpoint, unix.AT_STATX_DONT_SYNC, 0, &st) }); err != nil {
		return // Seen will tell, if there is something wrong
	}
	knob := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", st.Dev_major, st.Dev_minor)
	if f, err := os.OpenFile(knob, os.O_WRONLY, 0); err == nil {
		fmt.Fprint(f, readBytes>>10)
		f.Close()
	}
}

// reservedName is answered for by go-fuse, with a file that isn't there, when it is looked up in a view's root.
const reservedName = ".go-fuse-epoll-hack"

// requiredCapabilities are features of the kernel without which a view would not show the layer as it is.
const requiredCapabilities uint64 = fuse.CAP_POSIX_ACL

func mountOptions(v *View) *fuse.MountOptions {
	return &fuse.MountOptions{
		DirectMountStrict: true,
		// Read-only, so that reading makes no attributes stale: the kernel would ask for a new atime.
		DirectMountFlags: unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID,
		Options:          []string{"default_permissions"},
		AllowOther:       true,
		FsName:           fileSystemType,
		Name:             fileSystemType,
		Logger:           log.New(logWriter{v}, "", 0),

		DisableReadDirPlus:       true,
		EnableAcl:                true,
		EnableSymlinkCaching:     true,
		ExplicitDataCacheControl: true,
		MaxWrite:                 readBytes, // it is the option max_read, too
		MaxReadAhead:             readBytes,
		MaxBackground:            64,
		// NO_OPEN: the kernel would stop asking. PASSTHROUGH: it would count the view as a file system on top of another one, which
		// leaves one level less for an overlay in the overlay.
		DisabledCapabilities: fuse.CAP_NO_OPEN_SUPPORT | fuse.CAP_NO_OPENDIR_SUPPORT | fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_PASSTHROUGH,
		PanicHandler: func(p any) fuse.Status {
			v.fail(fmt.Errorf("panic: %v", p))
			return fuse.EIO
		},
	}
}

// Seen returns what was noticed so far, in the order of the first touches; the root is always among it. An error says that the
// record may be incomplete: then everything counts as read. It may be called before and after Close.
func (v *View) Seen() ([]trace.Seen, error) {
	if !v.closing.Load() && !v.ended() {
		v.checkAlive()
	}
	v.mu.Lock()
	err := v.broken
	v.mu.Unlock()
	if err == nil && v.tree.full.Load() {
		err = fmt.Errorf("more than %d missing names were looked up", v.tree.maxAbsent.Load())
	}
	if err != nil {
		return nil, fmt.Errorf("record of view at %s: %w", v.mountpoint, err)
	}
	return v.tree.seen(), nil
}

// checkAlive notes when the view's server does not answer.
func (v *View) checkAlive() {
	if v.silent {
		return
	}
	if err := Alive(v.mountpoint); err != nil {
		v.fail(err)
	}
}

// Alive returns an error unless the server of the view at mountpoint answers. It makes the kernel ask for the attributes of the root. A connection
// that was aborted, which root may do in /sys/fs/fuse, answers all by itself, with errors.
func Alive(mountpoint string) error {
	answer := make(chan error, 1)
	go func() {
		var st unix.Statx_t
		answer <- ignoringEINTR(func() error {
			return unix.Statx(unix.AT_FDCWD, mountpoint, unix.AT_STATX_FORCE_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_MODE, &st)
		})
	}()
	select {
	case err := <-answer:
		if err != nil {
			return fmt.Errorf("ask its server: %w", err)
		}
		return nil
	case <-time.After(aliveWait):
		return errors.New("its server does not answer")
	}
}

// fail notes why the record may be incomplete.
func (v *View) fail(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.broken == nil {
		v.broken = err
	}
}

// Close unmounts the view and waits for its server to end. As long as the mount is in use it tries again, until ctx is done or for
// five seconds; then it detaches the mount and lets those who still use it get errors. What is above the view must have been
// unmounted before. After an error, when other mount namespaces hold the view, its server goes on until the last of them ends.
// Further calls do no harm.
func (v *View) Close(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultWait)
		defer cancel()
	}
	v.closed.Lock()
	defer v.closed.Unlock()
	if !v.closing.Load() && !v.ended() {
		v.checkAlive()
	}
	v.closing.Store(true)
	if !v.unmounted {
		forced, err := unmount(ctx, v.mountpoint)
		if err != nil {
			return fmt.Errorf("close view: %w", err)
		}
		v.unmounted = true
		if forced { // the server ends now, and the deadline is over
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), forcedWait)
			defer cancel()
		}
	}
	select {
	case <-v.done:
	case <-ctx.Done():
		return fmt.Errorf("close view: wait for its server: %w", context.Cause(ctx))
	}
	v.files.close(v.tree.root)
	return nil
}

func (v *View) ended() bool {
	select {
	case <-v.done:
		return true
	default:
		return false
	}
}

// unmount tries until ctx is done, and then breaks the connection (MNT_FORCE) and takes the mount away from its place.
func unmount(ctx context.Context, mountpoint string) (forced bool, err error) {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := ignoringEINTR(func() error { return unix.Unmount(mountpoint, unix.UMOUNT_NOFOLLOW) })
		if !errors.Is(err, unix.EBUSY) {
			// EINVAL: somebody else has unmounted it.
			if err == nil || errors.Is(err, unix.EINVAL) {
				return false, nil
			}
			return false, &os.PathError{Op: "unmount", Path: mountpoint, Err: err}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			err := unix.Unmount(mountpoint, unix.UMOUNT_NOFOLLOW|unix.MNT_FORCE|unix.MNT_DETACH)
			if err != nil {
				return true, &os.PathError{Op: "detach", Path: mountpoint, Err: err}
			}
			return true, nil
		}
	}
}

// logWriter gets go-fuse's messages. Those about an answer that did not reach the kernel make the record incomplete.
type logWriter struct{ v *View }

func (w logWriter) Write(b []byte) (int, error) {
	line := strings.TrimSpace(string(b))
	switch {
	case strings.Contains(line, "Unimplemented opcode"): // the kernel does without
	case strings.Contains(line, "trySplice"): // it is tried again with read(2)
	case w.v.closing.Load():
	case strings.Contains(line, syscall.ENOENT.Error()) && strings.Contains(line, "writer:"): // who asked was killed
	default:
		w.v.fail(fmt.Errorf("go-fuse: %s", line))
	}
	return len(b), nil
}
