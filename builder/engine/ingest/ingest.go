// Package ingest stores blobs without waiting for the disk.
//
// containerd's content store waits four times for each blob that it takes in, be it a configuration of a kilobyte: for two files with times, for the blob, and for
// its directory. On ext4 each of these waits until the journal has taken what all others wrote meanwhile, so that an edit right behind a cold build waits for
// what the cold build's steps left.
//
//	Writer ──> is something of it there? ──no──> ours: the same files, written without sync
//	                                     └─yes─> containerd's, which goes on where a killed process ended
//
// What comes in is the directory of a store, what goes out is a content.Store that reads, lists, deletes and resumes as containerd's; files and
// names are the same, so that either can go on with what the other left. The package knows nothing of what a blob is for.
//
// Blobs are as durable as all else in a state directory is without sync: see builder/process/marker.go, which throws it away after a crash of the machine. Where it is
// weak: the layout of containerd's ingests is known to containerd alone; tests go back and forth between the two.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// store is containerd's local store with other writers.
type store struct {
	content.Store
	root string

	mu     sync.Mutex
	locked map[string]bool // refs that have a writer
}

// NewStore returns the store in a directory, which is made if it is not there.
func NewStore(root string) (content.Store, error) {
	s, err := local.NewStore(root)
	if err != nil {
		return nil, err
	}
	return &store{Store: s, root: root, locked: map[string]bool{}}, nil
}

// Writer begins or resumes what is written under a ref. There is one writer for each ref at a time.
func (s *store) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	if o.Ref == "" {
		return nil, fmt.Errorf("a writer needs a ref: %w", errdefs.ErrInvalidArgument)
	}
	if err := s.lock(o.Ref); err != nil {
		return nil, err
	}
	w, err := s.writer(ctx, o, opts)
	if err != nil {
		s.unlock(o.Ref)
		return nil, err
	}
	return w, nil
}

func (s *store) writer(ctx context.Context, o content.WriterOpts, opts []content.WriterOpt) (content.Writer, error) {
	// Digests of another kind are few, and containerd knows which there are.
	if d := o.Desc.Digest; d == "" || d.Algorithm() == digest.Canonical {
		if d != "" {
			if _, err := s.Info(ctx, d); err == nil {
				return nil, fmt.Errorf("content %v: %w", d, errdefs.ErrAlreadyExists)
			}
		}
		if w, err := s.begin(o); !errors.Is(err, fs.ErrExist) {
			return w, err
		}
	}
	w, err := s.Store.Writer(ctx, opts...)
	if err != nil {
		return nil, err
	}
	return &resumed{Writer: w, unlock: sync.OnceFunc(func() { s.unlock(o.Ref) })}, nil
}

func (s *store) lock(ref string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locked[ref] {
		return fmt.Errorf("ref %s is being written: %w", ref, errdefs.ErrUnavailable)
	}
	s.locked[ref] = true
	return nil
}

func (s *store) unlock(ref string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.locked, ref)
}

// Names in the directory of an ingest, as containerd has them.
const (
	dataName    = "data"
	refName     = "ref"
	startedName = "startedat"
	updatedName = "updatedat"
	totalName   = "total"
)

// begin makes the directory of an ingest. It is fs.ErrExist if there is one.
func (s *store) begin(o content.WriterOpts) (_ *writer, err error) {
	dir := filepath.Join(s.root, "ingest", digest.FromString(o.Ref).Encoded())
	if err := os.MkdirAll(filepath.Dir(dir), 0o777); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	now := time.Now()
	at, err := now.MarshalText()
	if err != nil {
		return nil, err
	}
	names := map[string][]byte{refName: []byte(o.Ref), startedName: at, updatedName: at}
	if o.Desc.Size > 0 {
		names[totalName] = fmt.Append(nil, o.Desc.Size)
	}
	for name, data := range names {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, dataName), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, err
	}
	return &writer{store: s, dir: dir, file: f, digester: digest.Canonical.Digester(), status: content.Status{
		Ref: o.Ref, Total: o.Desc.Size, Expected: o.Desc.Digest, StartedAt: now, UpdatedAt: now,
	}}, nil
}

// resumed is containerd's writer. The ref is free when it has ended.
type resumed struct {
	content.Writer
	unlock func()
}

func (w *resumed) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	defer w.unlock() // containerd's writer is closed by it, however it ends
	return w.Writer.Commit(ctx, size, expected, opts...)
}

func (w *resumed) Close() error {
	defer w.unlock()
	return w.Writer.Close()
}
