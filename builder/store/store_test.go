package store_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	ctdmetadata "github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	containerdsnapshot "github.com/moby/buildkit/snapshot/containerd"
	"github.com/moby/buildkit/util/leaseutil"
	"github.com/sirupsen/logrus"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/optbuild/optbuild/builder/store"
	"github.com/optbuild/optbuild/builder/store/api"
)

// newStore returns a store as a command has it: through gRPC, over a metadata database like the engine's.
func newStore(t *testing.T, o store.Options) *store.Store {
	t.Helper()
	const ns = "buildkit"
	dir := t.TempDir()
	blobs, err := local.NewStore(filepath.Join(dir, "content"))
	ok(t, err)
	db, err := bolt.Open(filepath.Join(dir, "meta.db"), 0o600, &bolt.Options{NoSync: true})
	ok(t, err)
	t.Cleanup(func() { db.Close() })
	mdb := ctdmetadata.NewDB(db, blobs, nil)
	ok(t, mdb.Init(t.Context()))

	server := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		return h(namespaces.WithNamespace(ctx, ns), req)
	}))
	api.Serve(server, api.Stores{
		Images:  ctdmetadata.NewImageStore(mdb),
		Content: containerdsnapshot.NewContentStore(mdb.ContentStore(), ns),
		Leases:  leaseutil.WithNamespace(ctdmetadata.NewLeaseManager(mdb), ns),
	}, func(ctx context.Context) error {
		_, err := mdb.GarbageCollect(ctx)
		return err
	})
	ln := bufconn.Listen(1 << 20)
	go server.Serve(ln)
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("passthrough:///test",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return ln.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	ok(t, err)
	t.Cleanup(func() { conn.Close() })
	return store.New(api.Client(conn), o)
}

// newRegistry returns the host of a registry on loopback. Its requests go through wrap, if that is not nil.
func newRegistry(t *testing.T, wrap func(http.Handler) http.Handler) string {
	h := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	if wrap != nil {
		h = wrap(h)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func newImage(t *testing.T, platform string) v1.Image {
	t.Helper()
	image, err := random.Image(2000, 2)
	ok(t, err)
	config, err := image.ConfigFile()
	ok(t, err)
	p, err := v1.ParsePlatform(platform)
	ok(t, err)
	config.OS, config.Architecture, config.Variant = p.OS, p.Architecture, p.Variant
	image, err = mutate.ConfigFile(image, config)
	ok(t, err)
	return image
}

// newIndex returns an index with an image for each platform.
func newIndex(t *testing.T, platforms ...string) v1.ImageIndex {
	t.Helper()
	var index v1.ImageIndex = empty.Index
	for _, platform := range platforms {
		p, err := v1.ParsePlatform(platform)
		ok(t, err)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: newImage(t, platform), Descriptor: v1.Descriptor{Platform: p}})
	}
	return index
}

// upload puts an image or an index into a registry.
func upload(t *testing.T, ref string, what remote.Taggable) {
	t.Helper()
	tag, err := name.ParseReference(ref)
	ok(t, err)
	switch what := what.(type) {
	case v1.ImageIndex:
		ok(t, remote.WriteIndex(tag, what))
	case v1.Image:
		ok(t, remote.Write(tag, what))
	}
}

func digestOf(t *testing.T, what interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	h, err := what.Digest()
	ok(t, err)
	return h.String()
}

// rawManifest returns what a registry has under a name.
func rawManifest(t *testing.T, ref string) string {
	t.Helper()
	r, err := name.ParseReference(ref)
	ok(t, err)
	d, err := remote.Get(r)
	ok(t, err)
	return string(d.Manifest)
}

// dump prints what a store holds: a line for each name, one for each lease, and the number of blobs and of unfinished ones.
// replace has pairs of what differs between runs, and its name.
func dump(t *testing.T, s *store.Store, replace ...string) string {
	t.Helper()
	var names []string
	all, err := s.Images.List(t.Context())
	ok(t, err)
	for _, image := range all {
		names = append(names, strings.NewReplacer(replace...).Replace(image.Name+" "+image.Target.Digest.String()+"\n"))
	}
	slices.Sort(names)
	var b strings.Builder
	b.WriteString(strings.Join(names, ""))
	leases, err := s.Leases.List(t.Context())
	ok(t, err)
	for range leases {
		fmt.Fprintln(&b, "lease")
	}
	blobs := 0
	ok(t, s.Content.Walk(t.Context(), func(content.Info) error { blobs++; return nil }))
	unfinished, err := s.Content.ListStatuses(t.Context())
	ok(t, err)
	fmt.Fprintf(&b, "%d blobs, %d unfinished\n", blobs, len(unfinished))
	return b.String()
}

const nothing = "0 blobs, 0 unfinished\n"

func list(t *testing.T, s *store.Store, o store.ListOptions) string {
	t.Helper()
	images, err := s.List(t.Context(), o)
	ok(t, err)
	slices.SortFunc(images, func(a, b store.Image) int { return cmp.Compare(a.Name, b.Name) })
	var b strings.Builder
	for _, i := range images {
		fmt.Fprintln(&b, i.Repository, i.Tag, i.Platforms)
	}
	return b.String()
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n%s\nwant:\n%s", what, got, want)
	}
}

func failsWith(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", text)
	}
	if !strings.Contains(err.Error(), text) {
		t.Errorf("error %q, want %q in it", err, text)
	}
}

// What containerd's services log about the errors that the tests provoke is no result.
func TestMain(m *testing.M) {
	logrus.SetOutput(io.Discard)
	m.Run()
}
