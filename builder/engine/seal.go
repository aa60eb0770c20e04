package engine

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	bolt "go.etcd.io/bbolt"
)

// A seal says how an engine that ended properly left its files. It is taken away when the next one starts: an engine that
// finds none follows one that was killed or crashed, and looks at everything. With a seal, databases are compared with it,
// because bolt's pages carry no checksums: a page that was overwritten is noticed when it is read, as a panic or a fault in
// the middle of a build, or not at all.
type seal struct {
	// Databases maps paths below the engine's root.
	Databases map[string]stamp `json:"databases"`
	// Blobs is a digest of the names, sizes and times of the files in the content store, Snapshots one of the names and
	// times of the directories of snapshots and shared layers.
	Blobs     uint64 `json:"blobs"`
	Snapshots uint64 `json:"snapshots"`
}

// stamp describes one file.
type stamp struct {
	Bytes    int64  `json:"bytes"`
	Modified int64  `json:"modified"` // nanoseconds
	Sum      uint64 `json:"sum"`      // xxhash of the content
}

const sealName = "seal.json"

// databases are the bolt files below root, in the order in which they are opened.
func databases(root, worker string) []string {
	return []string{
		filepath.Join(root, "cache.db"),
		filepath.Join(root, "history.db"),
		filepath.Join(worker, "containerdmeta.db"),
		filepath.Join(worker, "metadata_v2.db"),
		filepath.Join(worker, "snapshots", "metadata.db"),
	}
}

// nameBelow is the name by which a seal knows a file: a state directory may be moved or copied.
func nameBelow(root, path string) string { return strings.TrimPrefix(path, root+"/") }

// breakSeal reads the seal and takes it away.
func breakSeal(root string) (s seal, ok bool) {
	path := filepath.Join(root, sealName)
	b, err := os.ReadFile(path)
	if err != nil || os.Remove(path) != nil {
		return seal{}, false
	}
	return s, json.Unmarshal(b, &s) == nil && s.Databases != nil
}

// writeSeal seals the files as they are. Nobody may write to them any more.
func (p *parts) writeSeal(root string, previous seal) error {
	s := seal{Databases: map[string]stamp{}, Blobs: p.stampBlobs(), Snapshots: p.stampSnapshots()}
	for _, path := range databases(root, p.root) {
		name := nameBelow(root, path)
		st, err := stampOf(path, previous.Databases[name])
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		s.Databases[name] = st
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, sealName), b, 0o600) // half a seal reads as none
}

// stampOf describes a file; its content is not read when size and time are those of known.
func stampOf(path string, known stamp) (stamp, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return stamp{}, err
	}
	s := stamp{Bytes: fi.Size(), Modified: fi.ModTime().UnixNano(), Sum: known.Sum}
	if s == known {
		return s, nil
	}
	b, err := os.ReadFile(path)
	s.Sum = xxhash.Sum64(b)
	return s, err
}

// checkDatabase reports damage in a bolt file, "" when there is none. known is its stamp in the seal, if there was one.
func checkDatabase(path string, sealed bool, known stamp) (damage string) {
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && known == stamp{}:
		return ""
	case err != nil:
		return "is missing"
	case sealed && known != stamp{}:
		switch now, err := stampOf(path, known); {
		case err != nil:
			return "can't be read"
		case now.Sum != known.Sum || now.Bytes != known.Bytes:
			return "was changed by something else than optbuild"
		}
		return ""
	case fi.Size() == 0: // the engine was killed before it wrote anything
		return ""
	}
	if err := readDatabase(path); err != nil {
		return "is damaged"
	}
	return ""
}

// readDatabase reads every page of a bolt file. Garbage makes bolt panic or fault; such a file stays open, because bolt's
// locks are held then, and has to be removed.
func readDatabase(path string) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return err
	}
	tx, err := db.Begin(false)
	if err != nil {
		return err
	}
	if fi, err := os.Stat(path); err != nil || fi.Size() < tx.Size() {
		return errors.New("truncated")
	}
	// First in this goroutine, where faults can be caught: bolt's own check runs in another.
	if err := readBucket(tx.Cursor().Bucket()); err != nil {
		return err
	}
	for e := range tx.Check() {
		if err == nil {
			err = e
		}
	}
	return errors.Join(err, tx.Rollback(), db.Close())
}

func readBucket(b *bolt.Bucket) error {
	var sum byte
	return b.ForEach(func(k, v []byte) error {
		for _, c := range v {
			sum ^= c
		}
		if v != nil {
			return nil
		}
		inner := b.Bucket(k)
		if inner == nil {
			return fmt.Errorf("bucket %q is missing", k)
		}
		return readBucket(inner)
	})
}

// stampBlobs digests the listing of the content store.
func (p *parts) stampBlobs() uint64 {
	h := xxhash.New()
	dir := filepath.Join(p.blobs(), "sha256")
	entries, _ := os.ReadDir(dir) // sorted
	for _, e := range entries {
		if fi, err := e.Info(); err == nil {
			stampFile(h, fi)
		}
	}
	return h.Sum64()
}

// stampSnapshots digests the listing of the directories of snapshots and shared layers: only their names, because steps write
// to them.
func (p *parts) stampSnapshots() uint64 {
	d := p.snapshotDirs()
	return stampNames(d.path, d.shared)
}

func stampNames(dirs ...string) uint64 {
	h := xxhash.New()
	for _, dir := range dirs {
		entries, _ := os.ReadDir(dir) // sorted
		for _, e := range entries {
			_, _ = h.WriteString(e.Name() + "/")
		}
		_, _ = h.WriteString("/")
	}
	return h.Sum64()
}

func stampFile(h *xxhash.Digest, fi fs.FileInfo) {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], uint64(fi.Size()))
	binary.LittleEndian.PutUint64(b[8:], uint64(fi.ModTime().UnixNano()))
	_, _ = h.WriteString(fi.Name())
	_, _ = h.Write(b[:])
}
