// Package lazypull mounts eStargz layers in place of fetching them, so that a step that runs on a large base image waits only for what it reads.
//
// What comes in is what BuildKit says when it is about to fetch the layers below a step: for each, the lowest first, a repository, digests, and the sessions with the credentials. What goes out is
// a snapshot of which only parts are here, or an error, upon which BuildKit fetches the layer and those above it as it always does. The package knows nothing of steps.
//
//	BuildKit ──Prepare──> Snapshotter ──> Puller ──Mount──> server (another process, FUSE) ──Fetch──> Puller ──> registry
//	                           └── snapshot.Layers: Defer
//
// # How sure it is
//
// BuildKit has a mode for snapshotters of this kind, which it knows by the name "stargz", and we are one to it. Its record of the layer goes on to say that the layer was not fetched, and all that
// reads blobs (exports, caches) fetches the blob. The snapshot's chain id has the digest of the table of contents in it, so that a layer that claims to unpack to what another one does, which
// nobody can check without all of it, stands for itself only.
//
// What is trusted is who wrote the manifest (or the entry of the shared cache): it names the blob by its digest and the table by another one. Each chunk of a file is compared with the table. Whether the blob
// is what its digest says is not known before somebody fetches it whole.
//
// The files are there for the life of the engine. Beside the snapshot lies a note from which the next engine mounts them again (package snapshot: Defer).
//
// A file that can't be read is an I/O error to a step, and the step fails whatever its exit code: see Executor.
package lazypull

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/moby/buildkit/session"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/builder/engine/lazypull/server"
	"github.com/optbuild/optbuild/builder/trace/view"
	"github.com/optbuild/optbuild/snapshot"
)

// Options of a Puller. All are required.
type Options struct {
	Layers   *snapshot.Layers
	Hosts    docker.RegistryHosts
	Sessions *session.Manager
	// Temporary is a directory whose content goes when the engine ends.
	Temporary string
}

// Puller mounts layers. Its methods may be called concurrently.
type Puller struct {
	o         Options
	supported func() error
	process   server.Process
	start     start
	twins     Elsewhere // nil: there are none

	told sync.Once // that layers can't be mounted here

	mounting sync.Mutex // held while a layer is mounted
	closing  context.Context
	end      context.CancelFunc
	reading  sync.WaitGroup // what reads ahead
	broken   sync.RWMutex   // held by what takes down the mounts of a server that has ended; no step begins meanwhile

	mu       sync.Mutex
	dir      bool // the directory for mount points is there
	sources  map[string]*source
	sessions []string        // that were seen last
	known    map[string]bool // names of images at registries
	whole    []string        // sessions that want layers whole
	link     link
	failures failures
	mounts   chan struct{}          // closed when a layer is mounted; nil if nobody waits
	read     map[string]bool        // programs that were read ahead
	unfit    map[string]bool        // twins, by their ids, of which it was told that they can't be mounted
	twinned  map[digest.Digest]bool // blobs for which twins were offered
}

// layer is what a snapshot's note says of its layer.
type layer struct {
	Ref    string // of an image, or of a shared cache
	Digest digest.Digest
	TOC    digest.Digest
	Cache  bool `json:",omitempty"` // Ref is that of a shared cache

	// Of is the blob that the record names, if this layer is its twin; and then Bytes is what the cache says of the twin's size.
	Of    digest.Digest `json:",omitempty"`
	Bytes int64         `json:",omitempty"`
}

// recorded is the blob by which BuildKit knows the layer.
func (l layer) recorded() digest.Digest { return cmp.Or(l.Of, l.Digest) }

// id is what the layer is known by on this machine. Half a digest is enough: mount options are short of space.
func (l layer) id() string {
	return digest.FromString(l.Digest.String() + " " + l.TOC.String()).Encoded()[:32]
}

// New returns what mounts layers for the snapshotter. It must be called before that is used.
func New(o Options) (*Puller, error) {
	p := &Puller{o: o, supported: sync.OnceValue(supported), sources: map[string]*source{}, known: map[string]bool{}}
	p.closing, p.end = context.WithCancel(context.Background())
	p.process = server.Process{Source: p, Ended: p.serverEnded}
	o.Layers.SetRemote(p.again)
	return p, p.readNotes()
}

// Close takes all mounts down.
func (p *Puller) Close() {
	p.end()
	defer p.reading.Wait() // when nobody answers any more
	p.mounting.Lock()
	defer p.mounting.Unlock()
	p.detach()
	p.process.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dir {
		_ = unix.Unmount(p.o.Layers.RemoteDir(), unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		p.dir = false
	}
}

// supported says what is in the way of mounting layers on this machine.
func supported() error {
	if b, err := os.ReadFile("/proc/self/uid_map"); err == nil {
		if f := strings.Fields(string(b)); len(f) == 3 && f[2] == "1" {
			return errors.New("files of other owners can't be shown where there is a single user id")
		}
	}
	if err := view.Supported(); err != nil {
		return errors.Unwrap(err)
	}
	return nil
}

// mount makes a layer's files appear at RemotePath, if they are not there.
func (p *Puller) mount(l layer, sessions []string) error {
	id := l.id()
	p.mounting.Lock()
	defer p.mounting.Unlock()
	src := p.source(id, l, sessions)
	path := p.o.Layers.RemotePath(id)
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	if err := p.makeDir(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestWait)
	defer cancel()
	size, err := src.size(ctx)
	if err != nil {
		return err
	}
	if l.Bytes > 0 && size != l.Bytes {
		return fmt.Errorf("layer %s of %s has %d bytes, and should have %d", l.Digest, l.Ref, size, l.Bytes)
	}
	cache, err := os.MkdirTemp(p.o.Temporary, "layer-")
	if err != nil {
		return err
	}
	// What is not complete has another name than what is looked for.
	making := filepath.Dir(path) + ".new"
	at := filepath.Join(making, filepath.Base(path))
	if err := os.MkdirAll(at, 0o755); err != nil {
		return errors.Join(err, os.RemoveAll(cache))
	}
	began := time.Now()
	names, err := p.process.Mount(server.Layer{ID: id, Digest: l.Digest, Bytes: size, TOC: l.TOC, Mountpoint: at, Cache: cache})
	if err == nil {
		err = view.Alive(at)
	}
	if err == nil {
		err = src.unfit()
	}
	if err == nil {
		err = os.Rename(making, filepath.Dir(path))
	}
	if err != nil {
		_ = unix.Unmount(at, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		return errors.Join(fmt.Errorf("mount layer %s of %s: %w", l.Digest, l.Ref, err), os.RemoveAll(making), os.RemoveAll(cache))
	}
	logrus.Debugf("layer %s of %s is mounted: %d bytes, %d names, %s", l.Digest, l.Ref, size, names, time.Since(began))
	p.noteMount()
	return nil
}

// nextMount returns what is closed when the next layer has been mounted.
func (p *Puller) nextMount() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mounts == nil {
		p.mounts = make(chan struct{})
	}
	return p.mounts
}

func (p *Puller) noteMount() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mounts != nil {
		close(p.mounts)
		p.mounts = nil
	}
}

// firstRead is true once for each file.
func (p *Puller) firstRead(file string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.read[file] {
		return false
	}
	if p.read == nil {
		p.read = map[string]bool{}
	}
	p.read[file] = true
	return true
}

// makeDir mounts a file system in memory for the mount points: they go with this process's mount namespace.
func (p *Puller) makeDir() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dir {
		return nil
	}
	dir := p.o.Layers.RemoteDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("optbuild", dir, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "mode=0700,size=1m"); err != nil {
		return &os.PathError{Op: "mount a file system in memory at", Path: dir, Err: err}
	}
	p.dir = true
	return nil
}

// again mounts a layer that an earlier engine, or a server that has ended, has mounted before. It is what the snapshotter calls.
func (p *Puller) again(_ string, note []byte) error {
	var l layer
	if err := json.Unmarshal(note, &l); err != nil {
		return fmt.Errorf("read the note of a layer: %w", err)
	}
	if err := p.supported(); err != nil {
		return fmt.Errorf("layer %s of %s was not fetched, and can't be mounted any more: %w", l.Digest, l.Ref, err)
	}
	return p.mount(l, nil)
}

// serverEnded takes down what is broken, so that it is mounted again when it is needed.
func (p *Puller) serverEnded(err error) {
	p.broken.Lock()
	defer p.broken.Unlock()
	p.mu.Lock()
	var all []layer
	for _, s := range p.sources {
		all = append(all, s.layer)
	}
	p.mu.Unlock()
	for _, l := range all {
		p.fail(l, "the process that shows it has ended: "+err.Error())
	}
	p.mounting.Lock()
	defer p.mounting.Unlock()
	p.detach()
}

func (p *Puller) detach() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.sources {
		path := p.o.Layers.RemotePath(id)
		if err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW|unix.MNT_FORCE|unix.MNT_DETACH); err == nil {
			_ = os.RemoveAll(filepath.Dir(path))
		}
	}
}
