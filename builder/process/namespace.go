package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const opPrivate = "make mounts private"

var errMaskedProc = errors.New("a fresh /proc can't be mounted")

// opError is a step of entering the namespaces that the kernel refused. It travels to the starter as text and number.
type opError struct {
	op  string
	err error
}

func (e *opError) Error() string { return e.op + ": " + e.err.Error() }
func (e *opError) Unwrap() error { return e.err }

// enterNamespaces prepares the mount namespace that we were cloned into: nothing that we mount is seen outside, /proc shows
// our own pid namespace, and runc's state directory is ours alone.
func (d Dir) enterNamespaces(s Shape) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return &opError{opPrivate, err}
	}
	if !s.NoPIDNamespace {
		err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			return errMaskedProc
		}
		if err != nil {
			return &opError{"mount /proc", err}
		}
	}
	if s.Kind == HostRoot {
		// As the host's root runc can't be told where to keep its state: BuildKit's executor has no option for it.
		const runcRoot = "/run/runc"
		if err := os.MkdirAll(runcRoot, 0o700); err != nil {
			return &opError{"make " + runcRoot, err}
		}
		if err := os.MkdirAll(d.runcState(), 0o700); err != nil {
			return err
		}
		if err := unix.Mount(d.runcState(), runcRoot, "", unix.MS_BIND, ""); err != nil {
			return &opError{"mount " + runcRoot, err}
		}
	}
	if s.OneID() {
		if err := ignoreOwnership(); err != nil {
			return fmt.Errorf("install the filter for single-id mode: %w", err)
		}
	}
	return nil
}

func (d Dir) runcState() string { return filepath.Join(d.file(runName), "runc") }
