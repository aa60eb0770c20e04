package lazypull

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/moby/buildkit/cache"
	cacheconfig "github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/cache/metadata"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/engine/unpack"
)

// record is one of BuildKit's, a layer on others.
type record struct {
	cache.ImmutableRef
	layer ocispecs.Descriptor
	there bool // its blob is here
	chain cache.RefList
}

func (r *record) LayerChain() cache.RefList { return slices.Clone(r.chain) } // Release empties it

func (r *record) Get(key string) *metadata.Value {
	if key != "cache.blobonly" {
		return nil
	}
	v, err := metadata.NewValue(!r.there)
	if err != nil {
		panic(err)
	}
	return v
}

func (r *record) GetRemotes(context.Context, bool, cacheconfig.RefConfig, bool, session.Group) ([]*solver.Remote, error) {
	return []*solver.Remote{{Descriptors: []ocispecs.Descriptor{r.layer}}}, nil
}

func (r *record) Release(context.Context) error { return nil }

// fetching is a manager that fetches layers before it makes a snapshot on them.
type fetching struct {
	cache.Manager
	store content.Store
	dirs  int // that there were for what is unpacked early, at most
	aside string
}

var errMade = errors.New("made")

func (f *fetching) New(ctx context.Context, parent cache.ImmutableRef, _ session.Group, _ ...cache.RefOption) (cache.MutableRef, error) {
	for _, l := range parent.LayerChain() {
		d := l.(*record).layer
		w, err := f.store.Writer(ctx, content.WithRef(d.Digest.String()), content.WithDescriptor(d))
		if err != nil {
			return nil, err
		}
		list, err := os.ReadDir(f.aside)
		if err != nil {
			return nil, err
		}
		f.dirs = max(f.dirs, len(list))
		if err := w.Close(); err != nil {
			return nil, err
		}
	}
	return nil, errMade
}

// TestLowest: of the layers below a step the lowest one is unpacked while it is fetched, if it is not here, and nothing is left of that.
func TestLowest(t *testing.T) {
	for name, tc := range map[string]struct {
		there [2]bool
		dirs  int
	}{"both to be fetched": {[2]bool{false, false}, 1}, "the lowest is here": {[2]bool{true, false}, 0}, "the upper is here": {[2]bool{false, true}, 1}} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			store, err := local.NewStore(filepath.Join(root, "content"))
			if err != nil {
				t.Fatal(err)
			}
			early := &unpack.Early{Dir: filepath.Join(root, "aside")}
			if err := os.Mkdir(early.Dir, 0o700); err != nil {
				t.Fatal(err)
			}
			low := &record{layer: ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerGzip, Digest: blob, Size: 10}, there: tc.there[0]}
			high := &record{layer: ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerGzip, Digest: table, Size: 10}, there: tc.there[1]}
			low.chain, high.chain = cache.RefList{low}, cache.RefList{low, high}
			inner := &fetching{store: early.Contents(store), aside: early.Dir}
			if _, err := Manager(inner, nil, nil, early).New(t.Context(), high, nil); !errors.Is(err, errMade) {
				t.Fatal(err)
			}
			if left, err := os.ReadDir(early.Dir); inner.dirs != tc.dirs || err != nil || len(left) > 0 {
				t.Errorf("%d unpacked early, want %d; left %v, %v", inner.dirs, tc.dirs, left, err)
			}
		})
	}
}
