// Package mounts lets the cache mounts of steps travel: what a step leaves in one is saved where other machines find it, and restored on a machine where the mount is new.
//
//	ResolveOp ──> BuildKit's op with an executor of ours
//	                before the step runs   a mount that is new and empty is filled with the archive that its key names
//	                after it succeeded     the mount is noted as used by the build
//	at the end of the build                Save makes archives of the mounts that were used, and gives them to the build's store
//
// A step that is cached or replayed does not run, so nothing is fetched for it. What an archive is, and how it is verified, is package cache/mounts; where archives are kept,
// and for how long, is the [Store]'s business. The README says why a restored mount can't make an image wrong that the same mount on one machine would not.
//
// Where it is weak: a mount that starts from files (from=) stays where it is, and so does one with an owner or a mode of its own where the snapshotter is neither
// overlayfs nor native.
package mounts

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/moby/buildkit/session"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/cache/mounts"
)

// Source has archives that other machines made.
type Source interface {
	// Provider reads the blobs of archives that Find has returned. Reading ends with the context that ReaderAt was given.
	content.Provider
	// Find returns the newest archive with a key; false if there is none.
	Find(ctx context.Context, key string) (Archive, bool, error)
}

// Store is a source that takes archives, too.
type Store interface {
	Source
	// Send takes the blobs of an archive. Those that are in fresh may not be there yet; the others are in what Find has returned.
	Send(ctx context.Context, key string, a Archive, fresh content.Provider) error
	// Commit lets others find what was sent since the last time.
	Commit(ctx context.Context) error
}

// Archive is what a store knows of one.
type Archive struct {
	Created  time.Time // by the clock of the machine that made it
	Manifest ocispecs.Descriptor
	Holds    []ocispecs.Descriptor // its other blobs
	Fresh    []ocispecs.Descriptor // for Send: which of all its blobs are in fresh
	Note     map[string]string     // what it is, for people
}

// Build is what one build wants of its cache mounts. Its fields are not changed once it is in use.
type Build struct {
	// Source is where mounts that are new here come from. It may know more from call to call.
	Source Source
	// Scope is part of each key: mounts of different scopes are different ones, whatever their ids. Empty: as on one machine, where all projects share mounts of one id.
	Scope string
	// Off says which mounts stay where they are, by the id that the Dockerfile gives them, or their target if it gives none. May be nil.
	Off func(id string) bool
	// Limits bound one mount, TotalBytes what is saved of all that the build used; 0: 8 GiB.
	Limits     mounts.Limits
	TotalBytes int64
	// MaxAge is how old an archive may be that is restored, and a file that is saved if it is one of those that may go; 0: however old.
	MaxAge time.Duration
	// Warn tells the user something. May be nil.
	Warn func(message string)

	mu   sync.Mutex
	used map[string]*use // by key: the mount that was used last
	told map[string]bool
}

const defaultTotal = 8 << 30

func (b *Build) warn(format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	logrus.Info(message)
	b.mu.Lock()
	told := b.told[message]
	if b.told == nil {
		b.told = map[string]bool{}
	}
	b.told[message] = true
	b.mu.Unlock()
	if !told && b.Warn != nil {
		b.Warn(message)
	}
}

// Options says what a Keeper is made of. Dir is required.
type Options struct {
	// Dir is where it keeps what it knows of this machine's mounts. It is created.
	Dir string
	// Builds returns the builds that a step runs for; none: its mounts stay here.
	Builds func(session.Group) []*Build
	// Copied returns the directories with the files that were copied into what the step of a context sees, topmost first; false if that is not known. May be nil.
	Copied func(context.Context) ([]string, bool)
	// Restored is told the id of each mount that was restored, as BuildKit has it. May be nil.
	Restored func(id string)
}

// Keeper knows the cache mounts of this machine. Its methods may be called concurrently.
type Keeper struct {
	o Options

	mu   sync.Mutex
	dirs map[string]*directory // that steps have used since the Keeper was made, by path
}

// directory is where the files of a mount are.
type directory struct {
	filling sync.Mutex // held while a step begins to use it, and while it is restored for that
	users   int        // steps that run with it; guarded by Keeper.mu, like uses
	uses    int        // how many there were so far
}

// New returns a Keeper. It forgets what it knew of mounts that are gone.
func New(o Options) (*Keeper, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of cache mounts: %w", err)
	}
	// What a killed process was sending.
	left, err := filepath.Glob(filepath.Join(o.Dir, freshPrefix+"*"))
	if err != nil {
		return nil, err
	}
	for _, dir := range left {
		if err := os.RemoveAll(dir); err != nil {
			return nil, fmt.Errorf("remove old archives: %w", err)
		}
	}
	k := &Keeper{o: o, dirs: map[string]*directory{}}
	return k, k.forget()
}

func (k *Keeper) directory(path string) *directory {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.dirs[path]
	if d == nil {
		d = &directory{}
		k.dirs[path] = d
	}
	return d
}

// enter notes that a step runs with a directory, and says whether it is the only one. The caller holds filling.
func (k *Keeper) enter(d *directory) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	d.users++
	d.uses++
	return d.users == 1
}

func (k *Keeper) leave(d *directory) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d.users--
}

// usage returns how many steps run with a directory, and how many have been begun.
func (k *Keeper) usage(path string) (users, uses int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if d := k.dirs[path]; d != nil {
		return d.users, d.uses
	}
	return 0, 0
}

// Used says whether there is anything to save.
func (b *Build) Used() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.used) > 0
}
