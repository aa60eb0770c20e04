// Package ledger keeps a build from using an old copy of a file of its context.
//
// BuildKit keeps a copy of each context between builds, and asks only for files whose size, time of modification, mode or
// owner differ from the copy's. An edit that keeps the size and sets the time back (`touch -r`, `tar x`, `mv` of a file of
// equal size, a tool that normalises times) is not seen, and the image gets the old content without a word.
//
// A ledger holds what was sent from the directories of one build: for each file the size and time that BuildKit compares,
// and what an edit can't help changing, the inode and the time of the inode's change (ctime). The next build on the same
// directories looks at the files that are in the ledger, and nothing else, before it sends anything:
//
//	size or time differ                    BuildKit will see it
//	nothing differs                        BuildKit's copy is right
//	inode or ctime differ, and only they   BuildKit would be wrong: start a new generation
//
// A generation is part of the name by which BuildKit finds its copy, so a new one is sent as a whole. That is also what
// happens when nothing is known: there is no ledger, a build was killed while it sent, the machine was started again.
//
// One ledger belongs to one copy. Builds that run at once on the same directories use different ledgers, in slots that are
// locked for as long as the build runs.
//
// Where it is weak: a file system whose inode numbers do not last (some FUSE ones) causes new generations where none is
// needed; one that does not keep ctime defeats it. What an unchanged context costs was measured: see README.md.
package ledger

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/tonistiigi/fsutil"
	"golang.org/x/sys/unix"
)

// Ledger is what was sent, and is being sent, from some directories. Its FS may be used concurrently.
type Ledger struct {
	store string // the directory of ledgers; "" makes every build a generation of its own
	boot  string // the machine's boot id
	now   func() time.Time
	roots []root

	file       *os.File // the locked slot; nil if there is none
	generation string
	slot       int
	known      []entry // what the ledger says was sent by earlier builds of this generation

	mu   sync.Mutex
	sent []entry // what this build sent, in that order
	open bool    // the file says that a build is sending
}

// root is one directory: the name of its mount, where it is, and what its ignore file says.
type root struct{ name, path string }

// key is one file: the index of its root and its path below it.
type key struct {
	root int
	path string
}

// entry is one line of a ledger.
type entry struct {
	key
	print
}

// New returns a ledger that will be kept in the directory store.
func New(store string) *Ledger { return &Ledger{store: store, boot: bootID(), now: time.Now} }

// FS adds a directory and returns a file system that writes down what is sent from it.
func (l *Ledger) FS(name, dir string, fs fsutil.FS) fsutil.FS {
	l.roots = append(l.roots, root{name, dir})
	return &recorder{FS: fs, ledger: l, root: len(l.roots) - 1, dir: dir}
}

// Open finds or starts the generation to use. It is called once, after the last FS and before anything is sent; it reads
// no file's content but the ignore files'.
func (l *Ledger) Open() {
	if len(l.roots) == 0 {
		return
	}
	l.generation = rand.Text()
	if l.store == "" {
		return
	}
	id := l.identity()
	for l.slot = range maxSlots {
		f, err := lock(filepath.Join(l.store, fmt.Sprintf("%s-%d", id[:32], l.slot)))
		if err == nil {
			l.file = f
			break
		}
		if err != unix.EWOULDBLOCK {
			return // an unwritable store: every build is a generation of its own
		}
	}
	if l.file == nil {
		return
	}
	generation, known, err := read(l.file, l.boot)
	if err == nil && l.trusted(known) {
		l.generation, l.known = generation, known
	}
}

// maxSlots bounds how many builds at once keep a copy of the same directories.
const maxSlots = 32

// Key names the engine's copies of the directories; "" if there are none.
func (l *Ledger) Key() string { return l.generation }

// identity tells apart builds that must not share a copy: other directories, other names, another order of them (entries
// name them by number), or another ignore file (BuildKit keeps a copy of that under a name of its own).
func (l *Ledger) identity() string {
	h := sha256.New()
	for _, r := range l.roots {
		var st unix.Stat_t
		_ = unix.Stat(r.path, &st) // a directory that is gone is an error of the build
		fmt.Fprintf(h, "%q %q %d %d %x\n", r.name, r.path, st.Dev, st.Ino, hashFile(filepath.Join(r.path, ".dockerignore")))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// hashFile returns the digest of a file's content. What is no file is as good as empty: BuildKit reads nothing from it.
func hashFile(path string) []byte {
	h := sha256.New()
	if fi, err := os.Stat(path); err == nil && fi.Mode().IsRegular() {
		if f, err := os.Open(path); err == nil {
			defer f.Close()
			_, _ = io.Copy(h, f)
		}
	}
	return h.Sum(nil)
}

// lock opens a slot's file and locks it, or returns EWOULDBLOCK. The lock ends with the process.
func lock(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			return nil, err
		}
		if now, err := os.Stat(path); err == nil {
			if mine, err := f.Stat(); err == nil && os.SameFile(now, mine) {
				return f, nil
			}
		}
		f.Close() // removed as too old between open and lock
	}
}

// trusted looks at the files of the ledger. It is false if BuildKit could take one of them for what it is not.
func (l *Ledger) trusted(known []entry) bool {
	const atOnce = 4 // looking is bound by the kernel's path walk, and shares the machine with the engine's start
	bad := make([]bool, atOnce)
	start := l.now() // a file that changes from now on counts as racy
	var wg sync.WaitGroup
	for part := range atOnce {
		wg.Go(func() {
			var files *looker
			for _, e := range known[len(known)*part/atOnce : len(known)*(part+1)/atOnce] {
				if e.root >= len(l.roots) {
					bad[part] = true
					return
				}
				if root := l.roots[e.root].path; files == nil || files.root != root {
					files = newLooker(root)
					defer files.close()
				}
				now, ok := files.look(e.path, start)
				if ok && now.compared == e.compared && (now.inode != e.inode || e.inode == racy) {
					bad[part] = true
					return
				}
			}
		})
	}
	wg.Wait()
	return !slices.Contains(bad, true)
}

// Close writes the ledger and gives the slot free. sound says that all that was sent has arrived; otherwise the next build
// starts a new generation. It may be called again, without effect.
func (l *Ledger) Close(sound bool) error {
	if l.file == nil {
		return nil
	}
	defer func() {
		l.file.Close()
		l.file = nil
	}()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.open || !sound {
		return nil
	}
	entries, ok := merge(l.known, l.sent)
	if !ok {
		return nil
	}
	if len(entries) == len(l.known) {
		return markClosed(l.file)
	}
	if len(entries) > 2*len(l.sent)+keepGone {
		return nil
	}
	if err := write(l.file, l.boot, l.generation, entries); err != nil {
		return fmt.Errorf("write ledger of the context: %w", err)
	}
	removeOld(l.store, l.now().Add(-keepUnused))
	return nil
}

// merge returns what the ledger says of each file and each size and time that it was seen with. All of it stays: BuildKit
// keeps several copies of one name (the ignore file's, one for each platform that was built at once, those of an engine of
// another shape), and which of them a build brought up to date is not known here. It is false if a file was seen with one
// size and time and two inodes: it was edited after it was looked at, and what the copies have of it is not known.
func merge(known, sent []entry) ([]entry, bool) {
	type look struct {
		key
		compared uint64
	}
	inodes := make(map[look]uint64, len(known)+len(sent))
	merged := slices.Clip(known)
	for _, e := range known {
		inodes[look{e.key, e.compared}] = e.inode
	}
	for _, e := range sent {
		switch before, ok := inodes[look{e.key, e.compared}]; {
		case ok && before != e.inode:
			return nil, false
		case !ok:
			inodes[look{e.key, e.compared}] = e.inode
			merged = append(merged, e)
		}
	}
	return merged, true
}

const (
	keepGone   = 10_000              // files and states of earlier builds, more than were sent now, before a ledger is begun anew
	keepUnused = 30 * 24 * time.Hour // what nobody built for so long is likely to have left the cache as well
)

// removeOld removes ledgers that have not been written since a time, unless they are in use.
func removeOld(store string, since time.Time) {
	entries, err := os.ReadDir(store)
	if err != nil {
		return
	}
	for _, e := range entries {
		if fi, err := e.Info(); err != nil || !fi.ModTime().Before(since) {
			continue
		}
		path := filepath.Join(store, e.Name())
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			_ = os.Remove(path)
		}
		f.Close()
	}
}
