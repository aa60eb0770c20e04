package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/moby/buildkit/cache"
	cacheconfig "github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/util/compression"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/compress"
	"github.com/optbuild/optbuild/builder/engine/ingest"
)

// layeredRef is a result with blobs.
type layeredRef struct {
	cache.ImmutableRef
	layers []ocispecs.Descriptor
}

func (r layeredRef) GetRemotes(context.Context, bool, cacheconfig.RefConfig, bool, session.Group) ([]*solver.Remote, error) {
	return []*solver.Remote{{Descriptors: r.layers}}, nil
}

// unlabelled forgets labels, which are the database's above the store.
type unlabelled struct{ content.Store }

func (unlabelled) Update(_ context.Context, info content.Info, _ ...string) (content.Info, error) {
	return info, nil
}

func TestAsAsked(t *testing.T) {
	const gzip, zstd = ocispecs.MediaTypeImageLayerGzip, ocispecs.MediaTypeImageLayerZstd
	store, err := ingest.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	blobs := unlabelled{store}
	for _, test := range []struct {
		name   string
		layers []string // the first is the base image's
		format compress.Format
		force  bool
		want   string // what is asked for: "", "built layers", "all layers"
	}{
		{"as they are", []string{gzip, gzip, gzip}, compress.Gzip, false, ""},
		{"the base is another", []string{zstd, gzip, gzip}, compress.Gzip, false, ""},
		{"one was built before", []string{gzip, gzip, zstd}, compress.Gzip, false, "built layers"},
		{"all were", []string{gzip, gzip, gzip}, compress.Zstd, false, "built layers"},
		{"by force", []string{gzip, gzip, gzip}, compress.Gzip, true, "all layers"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var ref layeredRef
			for i, m := range test.layers {
				blob := bytes.Repeat([]byte{byte(i)}, 1000) // looked at for the end of an eStargz
				d := ocispecs.Descriptor{MediaType: m, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
				if err := content.WriteBlob(t.Context(), blobs, "layer", bytes.NewReader(blob), d); err != nil {
					t.Fatal(err)
				}
				ref.layers = append(ref.layers, d)
			}
			base, err := json.Marshal(dockerspec.DockerOCIImage{Image: ocispecs.Image{RootFS: ocispecs.RootFS{DiffIDs: make([]digest.Digest, 1)}}})
			if err != nil {
				t.Fatal(err)
			}
			typ, err := compress.New(test.format, compress.Options{})
			if err != nil {
				t.Fatal(err)
			}
			c := compression.New(typ)
			c.Force = test.force
			src := &exporter.Source{Ref: &ref, Metadata: map[string][]byte{exptypes.ExporterImageBaseConfigKey: base}}
			out, err := asAsked(t.Context(), src, c, blobs, nil)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if a, ok := out.Ref.(asked); ok {
				got = "all layers"
				if _, some := a.compression.Type.(except); some {
					got = "built layers"
				}
				if !a.compression.Force {
					t.Error("nothing is forced")
				}
			}
			if got != test.want {
				t.Errorf("asked for: %q, want %q", got, test.want)
			}
		})
	}
}
