// Package store keeps what is known of earlier runs of steps, so that a build finds it: traces under their weak keys, what a
// step was made of when it ran last, and which steps are not worth watching.
//
//	<dir>/key              32 random bytes that seal traces
//	<dir>/weak/<weak key>  ids of the layers that were made under that key, one a line, the most recent first
//	<dir>/steps/<slot>     what a step was made of when it ran last, as JSON
//	<dir>/skips/<slot>     for how many runs a step stays unwatched
//	<shared>/<id>/trace    the trace, beside the layer that it belongs to: they live and die together
//
// Nothing here fails a build. What is missing is forgotten, what is damaged, forged or in another's place is forgotten with a
// message, and the step runs.
//
// A Store may be used by several goroutines. Only one process may have its directory open.
package store

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/optbuild/optbuild/builder/atomicfile"
	"github.com/optbuild/optbuild/builder/trace"
)

const (
	maxIDs   = 8         // layers under one weak key: as many states of its inputs as people go back and forth between
	maxTrace = 128 << 20 // bytes of a stored trace: what is larger was not written here
)

// Store is an open directory.
type Store struct {
	dir    string
	shared func(id string) string
	key    []byte

	mu      sync.Mutex // guards the files of dir
	written int        // step records since the last count of them
}

// Open opens a directory, or makes it. shared is where the layer with an id lies.
func Open(dir string, shared func(id string) string) (*Store, error) {
	for _, sub := range []string{"weak", "steps", "skips"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("open store of traces: %w", err)
		}
	}
	s := &Store{dir: dir, shared: shared}
	if err := s.openKey(); err != nil {
		return nil, fmt.Errorf("open store of traces: %w", err)
	}
	return s, nil
}

const keySize = 32

// openKey reads the key. One that is missing, too short, or was open to others is made anew, and the index, whose traces can't be
// read any more, is emptied.
func (s *Store) openKey() error {
	path := filepath.Join(s.dir, "key")
	info, err := os.Lstat(path)
	if err == nil && info.Mode().IsRegular() && info.Mode().Perm() == 0o600 {
		if s.key, err = os.ReadFile(path); err == nil && len(s.key) == keySize {
			return nil
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	weak := filepath.Join(s.dir, "weak")
	if err := os.RemoveAll(weak); err != nil {
		return err
	}
	if err := os.Mkdir(weak, 0o700); err != nil {
		return err
	}
	s.key = make([]byte, keySize)
	_, _ = rand.Read(s.key) // never fails
	return atomicfile.Write(path, s.key, 0o600)
}

// Put stores a trace beside its layer, which must be there, and finds it first from now on.
func (s *Store) Put(t *trace.Trace) error {
	b, err := t.Encode(s.key)
	if err != nil {
		return fmt.Errorf("store trace: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := atomicfile.Write(s.tracePath(t.Layer), b, 0o600); err != nil {
		return fmt.Errorf("store trace: %w", err)
	}
	ids := slices.DeleteFunc(s.ids(t.Weak), func(id string) bool { return id == t.Layer })
	if err := s.setIDs(t.Weak, append([]string{t.Layer}, ids...)); err != nil {
		return fmt.Errorf("store trace: %w", err)
	}
	return nil
}

// Lookup goes over the traces that were stored under a key, the most recent first. Each is read when its turn comes. An id without layer or
// trace is forgotten; a trace that can't be relied on is forgotten as well, and problem is called with the reason, once.
// The store may be changed while it is gone over.
func (s *Store) Lookup(weak [32]byte, problem func(message string)) iter.Seq[*trace.Trace] {
	return func(yield func(*trace.Trace) bool) {
		s.mu.Lock()
		ids := s.ids(weak)
		s.mu.Unlock()
		for _, id := range ids {
			t, err := s.read(&weak, id)
			if err != nil {
				s.forget(weak, id)
				if !errors.Is(err, fs.ErrNotExist) && problem != nil {
					problem(fmt.Sprintf("stored trace of layer %s is not used: %v", id, err))
				}
				continue
			}
			if !yield(t) {
				return
			}
		}
	}
}

// read returns the trace of a layer if it is what the index says; without a key, whatever it is.
func (s *Store) read(weak *[32]byte, id string) (*trace.Trace, error) {
	path := s.tracePath(id)
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxTrace {
		return nil, fmt.Errorf("%w: mode %s, %d bytes", trace.ErrFormat, info.Mode(), info.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	t, err := trace.Decode(b, s.key)
	if err != nil {
		return nil, err
	}
	if t.Layer != id {
		return nil, fmt.Errorf("it belongs to layer %s", t.Layer)
	}
	if weak != nil && t.Weak != *weak {
		return nil, fmt.Errorf("it belongs to another step")
	}
	return t, nil
}

// Of returns the trace of a layer.
func (s *Store) Of(id string) (*trace.Trace, error) {
	if !isID(id) {
		return nil, fmt.Errorf("%q is the id of no layer", id)
	}
	return s.read(nil, id)
}

// Touch says that a layer was used again: it is found first from now on.
func (s *Store) Touch(weak [32]byte, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := s.ids(weak)
	i := slices.Index(ids, id)
	if i < 0 {
		return
	}
	if i == 0 {
		now := time.Now() // Collect goes by it
		_ = os.Chtimes(s.weakPath(weak), now, now)
		return
	}
	ids = append([]string{id}, slices.Delete(ids, i, i+1)...)
	_ = s.setIDs(weak, ids) // it is found all the same, only later
}

// forget removes an id from a key's.
func (s *Store) forget(weak [32]byte, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := s.ids(weak)
	if i := slices.Index(ids, id); i >= 0 {
		_ = s.setIDs(weak, slices.Delete(ids, i, i+1)) // else it is looked for in vain once more
	}
}

func (s *Store) tracePath(id string) string { return filepath.Join(s.shared(id), "trace") }

func (s *Store) weakPath(weak [32]byte) string {
	return filepath.Join(s.dir, "weak", hex.EncodeToString(weak[:]))
}

// ids reads the ids of a key. Lines that are none are left out.
func (s *Store) ids(weak [32]byte) []string { return readIDs(s.weakPath(weak)) }

func readIDs(path string) []string {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var ids []string
	for line := range strings.Lines(string(b)) {
		id, whole := strings.CutSuffix(line, "\n")
		if whole && isID(id) && !slices.Contains(ids, id) && len(ids) < maxIDs {
			ids = append(ids, id)
		}
	}
	return ids
}

// isID says whether a string is 32 hexadecimal digits: it becomes part of a path.
func isID(s string) bool {
	return len(s) == 32 && strings.Trim(s, "0123456789abcdef") == ""
}

func (s *Store) setIDs(weak [32]byte, ids []string) error {
	path := s.weakPath(weak)
	if len(ids) == 0 {
		return os.Remove(path)
	}
	ids = ids[:min(len(ids), maxIDs)]
	return atomicfile.Write(path, []byte(strings.Join(ids, "\n")+"\n"), 0o600)
}
