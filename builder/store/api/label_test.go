package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/optbuild/optbuild/builder/store/api"
)

// updates counts changes of labels.
type updates struct {
	content.Store
	n int
}

func (u *updates) Update(ctx context.Context, info content.Info, fields ...string) (content.Info, error) {
	u.n++
	return u.Store.Update(ctx, info, fields...)
}

// TestLabel: an index, its manifests and what these consist of are linked, once, as far as they are here; other labels stay.
func TestLabel(t *testing.T) {
	ctx := namespaces.WithNamespace(t.Context(), "test")
	dir := t.TempDir()
	db, err := bolt.Open(filepath.Join(dir, "meta.db"), 0o600, &bolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	blobs, err := local.NewStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	store := &updates{Store: metadata.NewDB(db, blobs, nil).ContentStore()}
	write := func(mediaType string, v any) ocispecs.Descriptor {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		d := ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
		if err := content.WriteBlob(ctx, store, string(d.Digest), bytes.NewReader(b), d, content.WithLabels(map[string]string{"mine": "1"})); err != nil {
			t.Fatal(err)
		}
		return d
	}
	config, layer := write(ocispecs.MediaTypeImageConfig, "config"), write(ocispecs.MediaTypeImageLayerGzip, "layer")
	manifest := write(ocispecs.MediaTypeImageManifest, ocispecs.Manifest{MediaType: ocispecs.MediaTypeImageManifest, Config: config, Layers: []ocispecs.Descriptor{layer}})
	elsewhere := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageManifest, Digest: digest.FromString("elsewhere"), Size: 1}
	index := write(ocispecs.MediaTypeImageIndex, ocispecs.Index{MediaType: ocispecs.MediaTypeImageIndex, Manifests: []ocispecs.Descriptor{manifest, elsewhere}})

	for range 2 {
		if err := api.Label(ctx, store, index); err != nil {
			t.Fatal(err)
		}
	}
	if store.n != 2 {
		t.Errorf("labels were changed %d times, want 2", store.n)
	}
	for d, want := range map[digest.Digest][]digest.Digest{index.Digest: {manifest.Digest, elsewhere.Digest}, manifest.Digest: {config.Digest, layer.Digest}} {
		info, err := store.Info(ctx, d)
		if err != nil {
			t.Fatal(err)
		}
		values := slices.Collect(maps.Values(info.Labels))
		for _, w := range want {
			if !slices.Contains(values, string(w)) {
				t.Errorf("%s has no link to %s: %v", d, w, info.Labels)
			}
		}
		if info.Labels["mine"] != "1" {
			t.Errorf("%s has lost a label: %v", d, info.Labels)
		}
	}
}
