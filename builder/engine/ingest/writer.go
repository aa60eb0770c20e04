package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
)

// writer writes a blob that was not begun before. As with all writers of content stores, its methods may not be called concurrently.
type writer struct {
	store    *store
	dir      string
	file     *os.File // nil when it has ended
	digester digest.Digester
	status   content.Status
}

func (w *writer) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	w.digester.Hash().Write(p[:n])
	w.status.Offset += int64(n)
	w.status.UpdatedAt = time.Now()
	return n, err
}

func (w *writer) Digest() digest.Digest { return w.digester.Digest() }

func (w *writer) Status() (content.Status, error) { return w.status, nil }

// Truncate begins again.
func (w *writer) Truncate(size int64) error {
	if size != 0 {
		return errors.New("truncate: a blob can only be begun again")
	}
	w.digester.Hash().Reset()
	w.status.Offset = 0
	if _, err := w.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return w.file.Truncate(0)
}

// Close leaves what was written to the next writer of the ref.
func (w *writer) Close() error {
	if w.file == nil {
		return nil
	}
	defer w.end()
	at, err := w.status.UpdatedAt.MarshalText()
	if err != nil {
		return errors.Join(err, w.file.Close())
	}
	return errors.Join(os.WriteFile(filepath.Join(w.dir, updatedName), at, 0o666), w.file.Close())
}

func (w *writer) end() {
	w.file = nil
	w.store.unlock(w.status.Ref)
}

// Commit shows what was written as a blob. Afterwards the writer is closed, whatever comes of it. Labels belong to the database above this store.
func (w *writer) Commit(_ context.Context, size int64, expected digest.Digest, _ ...content.Opt) error {
	if w.file == nil {
		return fmt.Errorf("commit: the writer is closed: %w", errdefs.ErrFailedPrecondition)
	}
	defer w.end()
	info, err := w.file.Stat()
	if cerr := w.file.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("close blob: %w", err)
	}
	if size > 0 && size != info.Size() {
		return fmt.Errorf("the blob has %d bytes, not %d: %w", info.Size(), size, errdefs.ErrFailedPrecondition)
	}
	d := w.digester.Digest()
	if expected != "" && expected != d {
		return fmt.Errorf("the blob is %s, not %s: %w", d, expected, errdefs.ErrFailedPrecondition)
	}
	blob := filepath.Join(w.store.root, "blobs", d.Algorithm().String(), d.Encoded())
	if err := os.MkdirAll(filepath.Dir(blob), 0o755); err != nil {
		return err
	}
	defer func() {
		if err := os.RemoveAll(w.dir); err != nil {
			logrus.WithError(err).Warn("remove what a blob was written in")
		}
	}()
	if _, err := os.Stat(blob); err == nil {
		return fmt.Errorf("content %v: %w", d, errdefs.ErrAlreadyExists)
	}
	data := filepath.Join(w.dir, dataName)
	now := time.Now() // the kernel's time of the last write may be some milliseconds behind it
	if err := os.Chtimes(data, now, now); err != nil {
		return err
	}
	if err := os.Chmod(data, info.Mode().Perm()&^0o333); err != nil { // nobody writes to a blob
		return err
	}
	return os.Rename(data, blob)
}
