// Package process gives a build its process shape: an engine with no daemon.
//
// The first command on a state directory takes a lock on it and starts itself again as the engine, in private mount and pid
// namespaces (and, unless it is root, a user namespace). Commands that come while the engine lives join it over a socket in
// the state directory. The engine ends when the last command has left, so nothing stays behind; and because it is the
// init process of its pid namespace and owns its mounts, that holds for `kill -9`, too.
//
//	command A ──lock──> starts ──> engine (pid 1 of its namespace)
//	    │  └──hold connection───────┤  ends when no hold connection is open
//	command B ──hold connection─────┘
//
// Terms: the *starter* is the command that started the engine, a *joiner* any other; a *hold connection* is one that a
// command keeps open for as long as it needs the engine. All connections go through one socket; the first line of each
// says which service it is for.
//
// What comes in is a state directory and, in the engine's process, a function that serves; what goes out is connections.
// The package knows nothing of BuildKit.
package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/optbuild/optbuild/builder/atomicfile"
)

// LayoutVersion is the version of the state directory's layout. It is raised when an older optbuild could not read it.
const LayoutVersion = 1

// Names below the state directory.
const (
	lockName    = "lock"
	socketName  = "engine.sock"
	versionName = "version.json"
	markerName  = "engine.json"
	logName     = "engine.log"
	cacheName   = "cache"
	singleName  = "cache-single-id"
	tmpName     = "tmp"
	runName     = "run"
	trashName   = "trash"
)

// Dir is a state directory that exists, is ours, and has a layout that we understand.
type Dir struct {
	path  string
	cache string // the cache's name below path: cacheName or singleName
}

// ErrNewerLayout is wrapped by the error for a state directory that a newer optbuild has written.
var ErrNewerLayout = errors.New("the state directory was written by a newer optbuild")

// OpenDir creates the state directory when it is missing, and refuses one that belongs to somebody else, can't be written,
// or has a newer layout.
func OpenDir(path string) (Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Dir{}, err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return Dir{}, &DirError{Path: path, Err: err}
	}
	// Symbolic links would make one directory have two names, and the kernel's overlay options are compared as text.
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return Dir{}, &DirError{Path: path, Err: err}
	}
	fi, err := os.Stat(path)
	if err != nil {
		return Dir{}, &DirError{Path: path, Err: err}
	}
	if st := fi.Sys().(*syscall.Stat_t); int(st.Uid) != os.Geteuid() {
		return Dir{}, &DirError{Path: path, Owner: int(st.Uid), Err: ErrForeignDir}
	}
	d := Dir{path: path, cache: cacheName}
	for _, name := range []string{cacheName, tmpName, runName, trashName} {
		if err := os.MkdirAll(d.file(name), 0o700); err != nil {
			return Dir{}, &DirError{Path: path, Err: err}
		}
	}
	return d, d.checkVersion()
}

func (d Dir) checkVersion() error {
	var v struct {
		Layout int `json:"layout"`
	}
	b, err := os.ReadFile(d.file(versionName))
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && len(b) == 0: // empty: the machine went down right after it was made
		v.Layout = LayoutVersion
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if err := atomicfile.Write(d.file(versionName), append(b, '\n'), 0o600); err != nil {
			return &DirError{Path: d.path, Err: err}
		}
		return nil
	case err != nil:
		return &DirError{Path: d.path, Err: err}
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return &DirError{Path: d.path, Err: fmt.Errorf("%w: read %s: %w", ErrBadDir, versionName, err)}
	}
	if v.Layout > LayoutVersion {
		return &DirError{Path: d.path, Err: fmt.Errorf("%w (layout %d, this one knows %d)", ErrNewerLayout, v.Layout, LayoutVersion)}
	}
	return nil
}

func (d Dir) file(name string) string { return filepath.Join(d.path, name) }

// Path is the absolute path of the directory, without symbolic links.
func (d Dir) Path() string { return d.path }

// Cache is where the engine's databases, blobs and snapshots are. Engines in single-id mode have one of their own: they
// could neither read nor remove what belongs to subordinate ids, and owners of files mean nothing in theirs.
func (d Dir) Cache() string { return d.file(d.cache) }

// in returns the directory as an engine of the given shape uses it.
func (d Dir) in(s Shape) Dir {
	d.cache = cacheName
	if s.OneID() {
		d.cache = singleName
	}
	return d
}

// Log is the engine's log file.
func (d Dir) Log() string { return d.file(logName) }

// ErrForeignDir is wrapped by the error for a state directory that another user owns.
var ErrForeignDir = errors.New("the state directory belongs to another user")

// ErrBadDir is wrapped by the error for a directory that was not written by optbuild, or was damaged.
var ErrBadDir = errors.New("not a state directory of optbuild")

// DirError is an error about the state directory itself.
type DirError struct {
	Path  string
	Owner int // user id; only with ErrForeignDir
	Err   error
}

func (e *DirError) Error() string {
	var pe *fs.PathError
	switch {
	case errors.Is(e.Err, ErrForeignDir):
		return fmt.Sprintf("state directory %s belongs to user %d, not to %d", e.Path, e.Owner, os.Geteuid())
	case errors.As(e.Err, &pe):
		return fmt.Sprintf("state directory %s: %s %s: %v", e.Path, pe.Op, pe.Path, pe.Err)
	}
	return fmt.Sprintf("state directory %s: %v", e.Path, e.Err)
}

func (e *DirError) Unwrap() error { return e.Err }
