package load

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/grpc"

	"github.com/optbuild/optbuild/builder/store/api"
)

// fakeContainerd serves containerd's metadata database at a socket, as containerd does, without the rest.
func fakeContainerd(t *testing.T, socket string) *metadata.DB {
	t.Helper()
	dir := t.TempDir()
	blobs, err := local.NewStore(filepath.Join(dir, "content"))
	if err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(filepath.Join(dir, "meta.db"), 0o600, &bolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	mdb := metadata.NewDB(db, blobs, nil)
	if err := mdb.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	api.Serve(server, api.Stores{
		Images: metadata.NewImageStore(mdb), Content: mdb.ContentStore(), Leases: metadata.NewLeaseManager(mdb),
	}, func(ctx context.Context) error {
		_, err := mdb.GarbageCollect(ctx)
		return err
	})
	l := listen(t, socket)
	go server.Serve(l)
	t.Cleanup(server.Stop)
	return mdb
}

func TestContainerd(t *testing.T) {
	data, image := archive(t)
	socket := filepath.Join(shortDir(t), "c.sock")
	mdb := fakeContainerd(t, socket)
	e, err := Find(t.Context(), Options{Root: shortDir(t), Getenv: env("CONTAINERD_ADDRESS="+socket, "CONTAINERD_NAMESPACE=mine")})
	if err != nil {
		t.Fatal(err)
	}
	if err := send(t, e, data[:len(data)-700]); err == nil {
		t.Error("loaded an archive that was cut short")
	}
	ctx := namespaces.WithNamespace(t.Context(), "mine")
	if all, err := metadata.NewImageStore(mdb).List(ctx); err != nil || len(all) > 0 {
		t.Errorf("after a failure there are images %v, %v", all, err)
	}
	if err := send(t, e, data); err != nil {
		t.Fatal(err)
	}
	if _, err := mdb.GarbageCollect(ctx); err != nil { // what nothing refers to goes
		t.Fatal(err)
	}
	got, err := metadata.NewImageStore(mdb).Get(ctx, "docker.io/library/app:1")
	if err != nil {
		t.Fatal(err)
	}
	blobs := []digest.Digest{got.Target.Digest}
	config, err := image.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	blobs = append(blobs, digest.Digest(config.String()))
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, layer := range layers {
		d, err := layer.Digest()
		if err != nil {
			t.Fatal(err)
		}
		blobs = append(blobs, digest.Digest(d.String()))
	}
	for _, d := range blobs {
		if _, err := mdb.ContentStore().Info(ctx, d); err != nil {
			t.Errorf("%s: %v", d, err)
		}
	}
	leases, err := metadata.NewLeaseManager(mdb).List(ctx)
	if err != nil || len(leases) > 0 {
		t.Errorf("leases are left: %v, %v", leases, err)
	}
}

// TestStaleSocket: a socket that nobody listens at is no engine.
func TestStaleSocket(t *testing.T) {
	root := shortDir(t)
	socket := filepath.Join(root, "run/containerd/containerd.sock")
	stale := listen(t, socket)
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.Close()
	if _, err := os.Stat(socket); err != nil {
		t.Fatal(err)
	}
	_, err := Find(t.Context(), Options{Root: root, Getenv: env()})
	if err == nil || !strings.HasSuffix(err.Error(), "containerd.sock (connection refused)") {
		t.Errorf("got %v", err)
	}
}
