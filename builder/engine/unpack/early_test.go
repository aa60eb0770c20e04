package unpack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// smallLayer is a layer with the kinds of files that an ordinary user can unpack, and the digest of what is in it.
func smallLayer(t *testing.T) (blob []byte, d ocispecs.Descriptor, diffID digest.Digest) {
	t.Helper()
	var plain, z bytes.Buffer
	w := tar.NewWriter(&plain)
	at := time.Unix(1e9, 0)
	random := make([]byte, 1<<20)
	if _, err := rand.NewChaCha8([32]byte{}).Read(random); err != nil {
		t.Fatal(err)
	}
	add := func(h tar.Header, text string) {
		h.Uid, h.Gid, h.ModTime, h.Size = os.Getuid(), os.Getgid(), at, int64(len(text))
		if err := errors.Join(w.WriteHeader(&h), func() error { _, err := w.Write([]byte(text)); return err }()); err != nil {
			t.Fatal(err)
		}
	}
	add(tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o751}, "")
	add(tar.Header{Typeflag: tar.TypeDir, Name: "etc/", Mode: 0o700}, "")
	add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/large", Mode: 0o640}, string(random))
	add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/run", Mode: 0o4755}, "#!/bin/sh\n")
	add(tar.Header{Typeflag: tar.TypeLink, Name: "etc/same", Linkname: "etc/run", Mode: 0o4755}, "")
	add(tar.Header{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "../etc/run"}, "")
	add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/.wh.nothing", Mode: 0o600}, "") // of what is below, where there is nothing
	for i := range 100 {
		add(tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprint("etc/", i), Mode: 0o600}, fmt.Sprint(i))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	zw := gzip.NewWriter(&z)
	if _, err := zw.Write(plain.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return z.Bytes(), ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerGzip, Digest: digest.FromBytes(z.Bytes()), Size: int64(z.Len())}, digest.FromBytes(plain.Bytes())
}

// listing is what a directory looks like.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := os.Lstat(path)
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		st := fi.Sys().(*syscall.Stat_t)
		fmt.Fprintln(&b, name, fi.Mode(), st.Uid, st.Gid, st.Nlink)
		if name != "." { // of which containerd leaves the time as it is
			fmt.Fprintln(&b, fi.ModTime().UTC())
		}
		switch {
		case fi.Mode().IsRegular():
			text, err := os.ReadFile(path)
			fmt.Fprintln(&b, digest.FromBytes(text))
			return err
		case fi.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			fmt.Fprintln(&b, to)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// asked is an applier that counts how often it was asked.
type asked struct {
	diff.Applier
	times int
}

func (c *asked) Apply(ctx context.Context, d ocispecs.Descriptor, m []mount.Mount, o ...diff.ApplyOpt) (ocispecs.Descriptor, error) {
	c.times++
	return c.Applier.Apply(ctx, d, m, o...)
}

// ground has a store, an Early before it, and a snapshot's directory.
type ground struct {
	*Early
	store content.Store
	inner *asked
	dir   string
}

func newGround(t *testing.T) *ground {
	t.Helper()
	root := t.TempDir()
	store, err := local.NewStore(filepath.Join(root, "content"))
	if err != nil {
		t.Fatal(err)
	}
	g := &ground{Early: &Early{Dir: filepath.Join(root, "aside")}, store: store, inner: &asked{Applier: apply.NewFileSystemApplier(store)}, dir: filepath.Join(root, "fs")}
	if err := errors.Join(os.Mkdir(g.Dir, 0o700), os.Mkdir(g.dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *ground) writer(t *testing.T, d ocispecs.Descriptor) content.Writer {
	t.Helper()
	w, err := g.Contents(g.store).Writer(t.Context(), content.WithRef("layer"), content.WithDescriptor(d))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// fetch writes a blob in pieces.
func (g *ground) fetch(t *testing.T, d ocispecs.Descriptor, blob []byte) {
	t.Helper()
	w := g.writer(t, d)
	write(t, w, blob)
	if err := w.Commit(t.Context(), d.Size, d.Digest); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, w content.Writer, blob []byte) {
	t.Helper()
	for len(blob) > 0 {
		n := min(len(blob), 1000)
		if _, err := w.Write(blob[:n]); err != nil {
			t.Fatal(err)
		}
		blob = blob[n:]
	}
}

func (g *ground) apply(t *testing.T, d ocispecs.Descriptor, m mount.Mount) digest.Digest {
	t.Helper()
	applied, err := g.Applier(g.inner).Apply(t.Context(), d, []mount.Mount{m})
	if err != nil {
		t.Fatal(err)
	}
	return applied.Digest
}

func (g *ground) bind() mount.Mount {
	return mount.Mount{Type: "bind", Source: g.dir, Options: []string{"rw", "rbind"}}
}

// asRoot skips what mounts: a bind mount is how containerd's applier gets at a directory.
func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a directory")
	}
}

// TestEarly: what is unpacked while it comes is what is unpacked afterwards.
func TestEarly(t *testing.T) {
	asRoot(t)
	blob, d, diffID := smallLayer(t)
	plain := newGround(t)
	plain.fetch(t, d, blob)
	if got := plain.apply(t, d, plain.bind()); got != diffID || plain.inner.times != 1 {
		t.Fatalf("unpacked %s by %d", got, plain.inner.times)
	}
	g := newGround(t)
	release := g.Expect(d)
	g.fetch(t, d, blob)
	if got := g.apply(t, d, g.bind()); got != diffID || g.inner.times != 0 {
		t.Errorf("unpacked %s, want %s; the other applier was asked %d times", got, diffID, g.inner.times)
	}
	release()
	if got, want := listing(t, g.dir), listing(t, plain.dir); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	g.empty(t)
}

// empty fails if anything is left aside, or expected.
func (g *ground) empty(t *testing.T) {
	t.Helper()
	if left, err := os.ReadDir(g.Dir); err != nil || len(left) > 0 || len(g.expected) > 0 {
		t.Errorf("left: %v, %v, %v", left, g.expected, err)
	}
}

// TestNotEarly: whatever is wrong, the layer is unpacked as ever, and nothing is left.
func TestNotEarly(t *testing.T) {
	asRoot(t)
	blob, d, diffID := smallLayer(t)
	full := func(g *ground) mount.Mount {
		if err := os.WriteFile(filepath.Join(g.dir, "there"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return g.bind()
	}
	for _, tc := range []struct {
		name string
		come func(t *testing.T, g *ground, release func())
		to   func(*ground) mount.Mount
	}{
		{"nobody expects it any more", func(t *testing.T, g *ground, release func()) { release(); g.fetch(t, d, blob) }, (*ground).bind},
		{"who expected it has ended", func(t *testing.T, g *ground, release func()) { g.fetch(t, d, blob); release() }, (*ground).bind},
		{"another one is expected", func(t *testing.T, g *ground, release func()) {
			release()
			other := d
			other.Digest = digest.FromString("other")
			t.Cleanup(g.Expect(other))
			g.fetch(t, d, blob)
		}, (*ground).bind},
		{"the store refuses it", func(t *testing.T, g *ground, _ func()) {
			w := g.writer(t, d)
			wrong := bytes.Clone(blob)
			wrong[9]++ // the operating system, of which gzip's sum does not know
			write(t, w, wrong)
			if err := w.Commit(t.Context(), d.Size, d.Digest); err == nil {
				t.Fatal("accepted")
			}
			if err := errors.Join(w.Close(), g.store.Abort(t.Context(), "layer")); err != nil {
				t.Fatal(err)
			}
			g.fetch(t, d, blob)
		}, (*ground).bind},
		{"it is committed without its digest", func(t *testing.T, g *ground, _ func()) {
			w := g.writer(t, d)
			write(t, w, blob)
			if err := w.Commit(t.Context(), d.Size, ""); err != nil {
				t.Fatal(err)
			}
		}, (*ground).bind},
		{"it begins again", func(t *testing.T, g *ground, _ func()) {
			w := g.writer(t, d)
			write(t, w, blob[:5000])
			if err := w.Truncate(0); err != nil {
				t.Fatal(err)
			}
			write(t, w, blob)
			if err := w.Commit(t.Context(), d.Size, d.Digest); err != nil {
				t.Fatal(err)
			}
		}, (*ground).bind},
		{"it goes on in another writer", func(t *testing.T, g *ground, _ func()) {
			w := g.writer(t, d)
			write(t, w, blob[:5000])
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			w = g.writer(t, d)
			write(t, w, blob[5000:])
			if err := w.Commit(t.Context(), d.Size, d.Digest); err != nil {
				t.Fatal(err)
			}
		}, (*ground).bind},
		{"it is there before it has come", func(t *testing.T, g *ground, _ func()) {
			write(t, g.writer(t, d), blob[:5000])
			if err := content.WriteBlob(t.Context(), g.store, "other", bytes.NewReader(blob), d); err != nil {
				t.Fatal(err)
			}
		}, (*ground).bind},
		{"there are files already", func(t *testing.T, g *ground, _ func()) { g.fetch(t, d, blob) }, full},
		{"the directory is another one's", func(t *testing.T, g *ground, _ func()) { g.fetch(t, d, blob) }, func(g *ground) mount.Mount {
			if err := os.Chmod(g.dir, 0o700); err != nil {
				t.Fatal(err)
			}
			return g.bind()
		}},
		{"there is nowhere to put it aside", func(t *testing.T, g *ground, _ func()) {
			if err := os.Remove(g.Dir); err != nil {
				t.Fatal(err)
			}
			g.fetch(t, d, blob)
			if err := os.Mkdir(g.Dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}, (*ground).bind},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := newGround(t)
			release := g.Expect(d)
			tc.come(t, g, release)
			if got := g.apply(t, d, tc.to(g)); got != diffID || g.inner.times != 1 {
				t.Errorf("unpacked %s, want %s; the other applier was asked %d times", got, diffID, g.inner.times)
			}
			release()
			if text, err := os.ReadFile(filepath.Join(g.dir, "etc", "99")); string(text) != "99" {
				t.Errorf("got %q, %v", text, err)
			}
			if tc.name != "another one is expected" {
				g.empty(t)
			}
		})
	}
}

// TestEarlyDamaged: a layer that can't be unpacked does not hinder who fetches it, and the error is the one that there is without.
func TestEarlyDamaged(t *testing.T) {
	asRoot(t)
	blob, d, _ := smallLayer(t)
	blob = bytes.Clone(blob)
	blob[len(blob)/2] ^= 0xff
	d.Digest = digest.FromBytes(blob)
	g := newGround(t)
	release := g.Expect(d)
	g.fetch(t, d, blob)
	if _, err := g.Applier(g.inner).Apply(t.Context(), d, []mount.Mount{g.bind()}); err == nil || g.inner.times != 1 {
		t.Errorf("got %v from the other applier, which was asked %d times", err, g.inner.times)
	}
	release()
	g.empty(t)
}

// TestDropped: what is asked for by somebody who did not expect it is not put in place once it goes.
func TestDropped(t *testing.T) {
	asRoot(t)
	blob, d, _ := smallLayer(t)
	g := newGround(t)
	release := g.Expect(d)
	g.fetch(t, d, blob)
	l := g.take(d.Digest)
	release()
	if _, err := l.into(t.Context(), g.dir); err == nil {
		t.Error("it is put in place")
	}
	if there, err := os.ReadDir(g.dir); err != nil || len(there) > 0 {
		t.Errorf("there are %v, %v", there, err)
	}
	g.empty(t)
}

// TestExpectTwice: the layer is there for as long as anybody expects it, and is used once.
func TestExpectTwice(t *testing.T) {
	asRoot(t)
	blob, d, diffID := smallLayer(t)
	g := newGround(t)
	first, second := g.Expect(d), g.Expect(d)
	g.fetch(t, d, blob)
	first()
	first()
	if got := g.apply(t, d, g.bind()); got != diffID || g.inner.times != 0 {
		t.Errorf("unpacked %s, want %s; the other applier was asked %d times", got, diffID, g.inner.times)
	}
	g.dir = filepath.Join(t.TempDir(), "fs")
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := g.apply(t, d, g.bind()); got != diffID || g.inner.times != 1 {
		t.Errorf("the second time: unpacked %s; the other applier was asked %d times", got, g.inner.times)
	}
	second()
	g.empty(t)
}
