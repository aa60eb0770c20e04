package tocfs

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/estargz/zstdchunked"
	"github.com/moby/buildkit/util/compression"
	"github.com/opencontainers/go-digest"

	"github.com/optbuild/optbuild/builder/compress"
	"github.com/optbuild/optbuild/builder/trace/view"
)

// The tests mount, in a mount namespace of their own.
const modeVariable = "OPTBUILD_TOCFS_TEST"

func TestMain(m *testing.M) {
	if os.Getenv(modeVariable) != "" || os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Args[0] = os.Args[0]
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.Env = append(os.Environ(), modeVariable+"=root")
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		os.Setenv(modeVariable, "failed: "+err.Error())
		os.Exit(m.Run())
	}
	os.Exit(c.ProcessState.ExitCode())
}

func needMounts(t *testing.T) {
	t.Helper()
	switch mode := os.Getenv(modeVariable); {
	case mode == "":
		t.Skip("needs root, for a mount namespace")
	case strings.HasPrefix(mode, "failed"):
		t.Skip("no mount namespace: " + mode)
	}
	if err := view.Supported(); err != nil {
		t.Skip(err.Error())
	}
}

// blob is a layer in memory. It counts what is fetched.
type blob struct {
	bytes []byte
	toc   digest.Digest

	mu      sync.Mutex
	fetched int64
	broken  func(off, size int64) ([]byte, error) // nil: it is not
}

func (b *blob) Fetch(_ context.Context, off, size int64) (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fetched += size
	p := b.bytes[off : off+size]
	if b.broken != nil {
		var err error
		if p, err = b.broken(off, size); err != nil {
			return nil, err
		}
	}
	return io.NopCloser(bytes.NewReader(p)), nil
}

// entry is one of an archive.
type entry struct {
	tar.Header
	content []byte
}

var past = time.Unix(1_600_000_000, 0)

// archived returns the bytes of an archive.
func archived(t *testing.T, entries []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		e.Size, e.Format = int64(len(e.content)), tar.FormatPAX
		if e.ModTime.IsZero() {
			e.ModTime = past
		}
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// estargzOf compresses an archive.
func estargzOf(t *testing.T, archive []byte) *blob {
	t.Helper()
	r, err := estargz.Build(io.NewSectionReader(bytes.NewReader(archive), 0, int64(len(archive))), estargz.WithChunkSize(100<<10))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return &blob{bytes: b, toc: r.TOCDigest()}
}

// cachedOf compresses an archive as a shared cache's large layers are.
func cachedOf(t *testing.T, archive []byte) *blob {
	t.Helper()
	c := compression.New(compress.ForCache(compress.Options{}))
	start, _ := c.Type.Compress(t.Context(), c)
	var b bytes.Buffer
	w, err := start(&b, c.Type.MediaType())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(archive); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := estargz.Open(io.NewSectionReader(bytes.NewReader(b.Bytes()), 0, int64(b.Len())), estargz.WithDecompressors(new(zstdchunked.Decompressor)))
	if err != nil {
		t.Fatal(err)
	}
	return &blob{bytes: b.Bytes(), toc: r.TOCDigest()}
}

// opened is a layer that is mounted, and what could not be read of it.
type opened struct {
	*Layer
	dir    string
	mu     sync.Mutex
	failed []string
}

func open(t *testing.T, b *blob) (*opened, error) {
	t.Helper()
	o := &opened{}
	l, err := Open(t.Context(), b, Options{
		Digest: digest.FromBytes(b.bytes), Bytes: int64(len(b.bytes)), TOC: b.toc, Cache: t.TempDir(),
		Failed: func(err error) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.failed = append(o.failed, err.Error())
		},
	})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = l.Close() })
	o.Layer = l
	return o, nil
}

func mounted(t *testing.T, b *blob) *opened {
	t.Helper()
	o, err := open(t, b)
	if err != nil {
		t.Fatal(err)
	}
	o.dir = t.TempDir()
	m, err := o.Mount(o.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Unmount(); err != nil {
			t.Error(err)
		}
		m.Wait()
	})
	if err := m.server.WaitMount(); err != nil { // this process asks itself
		t.Fatal(err)
	}
	return o
}
