package ingest

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/testsuite"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// The suite asks for labels and namespaces, too, which are the database's above this store.
func TestSuite(t *testing.T) {
	testsuite.ContentSuite(t, "ingest", func(ctx context.Context, root string) (context.Context, content.Store, func() error, error) {
		s, err := NewStore(root)
		if err != nil {
			return nil, nil, nil, err
		}
		db, err := bolt.Open(filepath.Join(root, "metadata.db"), 0o600, &bolt.Options{NoSync: true})
		if err != nil {
			return nil, nil, nil, err
		}
		var namespace atomic.Int64
		ctx = testsuite.SetContextWrapper(ctx, func(ctx context.Context, _ bool) (context.Context, func(context.Context) error, error) {
			return namespaces.WithNamespace(ctx, strconv.FormatInt(namespace.Add(1), 10)), func(context.Context) error { return nil }, nil
		})
		return ctx, metadata.NewDB(db, s, nil).ContentStore(), db.Close, nil
	})
}

func open(t *testing.T, s content.Store, ref string, desc ocispecs.Descriptor) content.Writer {
	t.Helper()
	w, err := s.Writer(t.Context(), content.WithRef(ref), content.WithDescriptor(desc))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func write(t *testing.T, w content.Writer, text string) {
	t.Helper()
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func stores(t *testing.T) (ours, theirs content.Store, root string) {
	t.Helper()
	root = t.TempDir()
	ours, err := NewStore(root)
	if err != nil {
		t.Fatal(err)
	}
	if theirs, err = local.NewStore(root); err != nil {
		t.Fatal(err)
	}
	return ours, theirs, root
}

// What one of the two stores has begun, the other ends.
func TestResume(t *testing.T) {
	const text = "one and two"
	d := digest.FromString(text)
	desc := ocispecs.Descriptor{Digest: d, Size: int64(len(text))}
	for _, test := range []struct {
		name  string
		order func(ours, theirs content.Store) (first, second content.Store)
	}{
		{"containerd goes on", func(o, c content.Store) (content.Store, content.Store) { return o, c }},
		{"containerd began", func(o, c content.Store) (content.Store, content.Store) { return c, o }},
		{"a process after another", func(o, _ content.Store) (content.Store, content.Store) { return o, o }},
	} {
		t.Run(test.name, func(t *testing.T) {
			ours, theirs, root := stores(t)
			first, second := test.order(ours, theirs)
			w := open(t, first, "layer", desc)
			write(t, w, text[:4])
			for name, s := range map[string]content.Store{"ours": ours, "containerd's": theirs} {
				st, err := s.Status(t.Context(), "layer")
				if err != nil || st.Offset != 4 || st.Total != desc.Size || st.Ref != "layer" || st.StartedAt.IsZero() {
					t.Errorf("status in %s: %+v, %v", name, st, err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			w = open(t, second, "layer", desc)
			if st, err := w.Status(); err != nil || st.Offset != 4 {
				t.Fatalf("resumed at %+v, %v", st, err)
			}
			write(t, w, text[4:])
			if err := w.Commit(t.Context(), desc.Size, d); err != nil {
				t.Fatal(err)
			}
			for _, s := range []content.Store{ours, theirs} {
				got, err := content.ReadBlob(t.Context(), s, desc)
				if err != nil || string(got) != text {
					t.Errorf("blob: %q, %v", got, err)
				}
			}
			left, err := os.ReadDir(filepath.Join(root, "ingest"))
			if err != nil || len(left) != 0 {
				t.Errorf("left of the ingest: %v, %v", left, err)
			}
			if _, err := second.Writer(t.Context(), content.WithRef("again"), content.WithDescriptor(desc)); !errdefs.IsAlreadyExists(err) {
				t.Errorf("a writer for what is there: %v", err)
			}
		})
	}
}

// A blob is as containerd would have left it: its bytes, its name, read by all and written by nobody.
func TestSameFiles(t *testing.T) {
	text := bytes.Repeat([]byte("layer"), 10_000)
	list := func(s content.Store, root string) (list []string) {
		w := open(t, s, "layer", ocispecs.Descriptor{})
		write(t, w, string(text))
		if err := w.Commit(t.Context(), 0, ""); err != nil {
			t.Fatal(err)
		}
		err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			i, err := d.Info()
			list = append(list, strings.TrimPrefix(path, root)+" "+i.Mode().String())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	ours, _, a := stores(t)
	_, theirs, b := stores(t)
	got, want := strings.Join(list(ours, a), "\n"), strings.Join(list(theirs, b), "\n")
	if got != want {
		t.Errorf("files:\n%s\ncontainerd's:\n%s", got, want)
	}
}

func TestWrongBlob(t *testing.T) {
	ours, _, root := stores(t)
	for _, test := range []struct {
		name string
		size int64
		want digest.Digest
	}{
		{"digest", 0, digest.FromString("other")},
		{"size", 3, digest.FromString("text")},
		{"kind of digest", 0, digest.SHA512.FromString("text")},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := open(t, ours, test.name, ocispecs.Descriptor{})
			write(t, w, "text")
			if err := w.Commit(t.Context(), test.size, test.want); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("commit: %v", err)
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
			open(t, ours, test.name, ocispecs.Descriptor{}).Close() // the ref is free again
			if blobs, _ := filepath.Glob(filepath.Join(root, "blobs", "*", "*")); len(blobs) != 0 {
				t.Errorf("stored: %v", blobs)
			}
		})
	}
}

func TestLocked(t *testing.T) {
	ours, _, _ := stores(t)
	for _, begun := range []bool{false, true} { // ours, containerd's
		w := open(t, ours, "layer", ocispecs.Descriptor{})
		if _, err := ours.Writer(t.Context(), content.WithRef("layer")); !errdefs.IsUnavailable(err) {
			t.Errorf("begun %v: a second writer: %v", begun, err)
		}
		for range 2 { // the second time it frees nothing
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := ours.Writer(t.Context()); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a writer without a ref: %v", err)
	}
}
