package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
)

// verified is a content store that reads nothing that was altered on disk, and takes nothing without end. BuildKit compares layers with their digests when
// it unpacks or sends them, but takes configurations and manifests as they are: an altered one changes what is built.
//
// Small blobs are compared before anything of them is given out, large ones when they were read from the start to the end.
// What is damaged is noted for the next start, which drops it: see damagedBlobs.
type verified struct {
	content.Store
	note func(digest.Digest)
}

// wholeUpTo is the size up to which a blob is compared as a whole. Manifests and configurations have some kilobytes.
const wholeUpTo = 256 << 10

func (v verified) ReaderAt(ctx context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	r, err := v.Store.ReaderAt(ctx, d)
	if err != nil || d.Digest.Algorithm() != digest.SHA256 {
		return r, err
	}
	if r.Size() > wholeUpTo {
		return &verifiedReader{ReaderAt: r, hash: sha256.New(), verify: v, digest: d.Digest}, nil
	}
	defer r.Close()
	b := make([]byte, r.Size())
	if _, err := r.ReadAt(b, 0); err != nil && len(b) > 0 {
		return nil, fmt.Errorf("read %s: %w", d.Digest, err)
	}
	if digest.FromBytes(b) != d.Digest {
		return nil, v.damaged(d.Digest)
	}
	return whole{bytes.NewReader(b)}, nil
}

func (v verified) damaged(d digest.Digest) error {
	v.note(d)
	return fmt.Errorf("%s is damaged in the state directory: the next command drops it", d)
}

type whole struct{ *bytes.Reader }

func (whole) Close() error { return nil }

// verifiedReader digests what is read in order.
type verifiedReader struct {
	content.ReaderAt
	verify verified
	digest digest.Digest

	mu   sync.Mutex
	hash hash.Hash
	next int64 // where reading in order goes on; -1 when it did not
}

func (r *verifiedReader) ReadAt(p []byte, at int64) (int, error) {
	n, err := r.ReaderAt.ReadAt(p, at)
	r.mu.Lock()
	defer r.mu.Unlock()
	if at != r.next {
		r.next = -1
		return n, err
	}
	r.hash.Write(p[:n])
	r.next += int64(n)
	if n > 0 && r.next == r.Size() && digest.NewDigest(digest.SHA256, r.hash) != r.digest {
		return 0, r.verify.damaged(r.digest)
	}
	return n, err
}

// Writer takes no more than the size that a descriptor names: BuildKit would look at it only in the end, and a registry that
// does not end could fill the disk.
func (v verified) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	w, err := v.Store.Writer(ctx, opts...)
	if err != nil {
		return nil, err
	}
	st, err := w.Status()
	if err != nil {
		w.Close()
		return nil, err
	}
	return &boundedWriter{Writer: w, store: v.Store, ref: o.Ref, desc: o.Desc, at: st.Offset}, nil
}

type boundedWriter struct {
	content.Writer
	store content.Store
	ref   string
	desc  ocispecs.Descriptor // of size 0 if it is not known
	at    int64
}

// Commit forgets what was written if it is not what it was to be: containerd would keep it, and go on from there the next time.
func (w *boundedWriter) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	err := w.Writer.Commit(ctx, size, expected, opts...)
	if errdefs.IsFailedPrecondition(err) {
		w.Writer.Close()
		if err := w.store.Abort(context.WithoutCancel(ctx), w.ref); err != nil && !errdefs.IsNotFound(err) {
			logrus.WithError(err).Warnf("forget what was fetched of %s", expected)
		}
		err = fetchAgain{err}
	}
	return err
}

// fetchAgain is an error of a blob that has to be fetched from its beginning. BuildKit tries again after what counts as a broken connection.
type fetchAgain struct{ error }

func (e fetchAgain) Unwrap() error { return e.error }

func (e fetchAgain) Is(target error) bool { return target == syscall.ECONNRESET }

func (w *boundedWriter) Write(p []byte) (int, error) {
	if w.desc.Size > 0 && w.at+int64(len(p)) > w.desc.Size {
		return 0, fmt.Errorf("%s is larger than the %d bytes that it should have", w.desc.Digest, w.desc.Size)
	}
	n, err := w.Writer.Write(p)
	w.at += int64(n)
	return n, err
}

func (w *boundedWriter) Truncate(size int64) error {
	err := w.Writer.Truncate(size)
	if err == nil {
		w.at = size
	}
	return err
}

// suspectsName is a file with the digests of blobs that were found damaged while they were in use, one in a line.
const suspectsName = "damaged-blobs"

func (p *parts) noteSuspect(d digest.Digest) {
	f, err := os.OpenFile(filepath.Join(p.root, suspectsName), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return // it will be found again
	}
	defer f.Close()
	_, _ = f.WriteString(d.String() + "\n")
}

// takeSuspects returns what was noted, and forgets it.
func (p *parts) takeSuspects() (suspects []digest.Digest) {
	path := filepath.Join(p.root, suspectsName)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	for line := range strings.FieldsSeq(string(b)) {
		if d, err := digest.Parse(line); err == nil {
			suspects = append(suspects, d)
		}
	}
	_ = os.Remove(path)
	return suspects
}
