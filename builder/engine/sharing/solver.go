package sharing

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/klauspost/compress/zstd"
	v1 "github.com/moby/buildkit/cache/remotecache/v1"
	cacheimporttypes "github.com/moby/buildkit/cache/remotecache/v1/types"
	"github.com/moby/buildkit/solver"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/engine/chains"
	"github.com/optbuild/optbuild/cache/remote"
)

// kindSolver is the kind of entries that hold BuildKit's cache chains of one build: which result a step has whose inputs have these digests.
const (
	kindSolver      = "solver"
	mediaTypeSolver = "application/vnd.optbuild.cache.solver.v1+zstd"
)

// Bounds of what is read.
const (
	maxSolver      = 4 << 20  // bytes of a blob
	maxSolverPlain = 64 << 20 // and of what is in it
	maxRecords     = 50_000
	maxDepth       = 500       // layers below each other: overlayfs mounts no more
	maxResultSize  = 1_000_000 // layers of all results: BuildKit makes a list for each
	maxSolved      = 10        // solver entries of one index that are read, the newest first
)

// solved is what a solver entry holds.
type solved struct {
	Config *cacheimporttypes.CacheConfig `json:"config"` // BuildKit's
	Layers []ocispecs.Descriptor         `json:"layers"` // with their annotations
	// Names are what chains of layers are called whose id is another one for those who fetch them, by that: see package record.
	Names map[string]string `json:"names,omitempty"`
	// Stored are the ids of stored layers by the name of what they make with the layers below them.
	Stored map[string]string `json:"stored,omitempty"`
	// Sums are what small layers are known by, by the digest of their content.
	Sums map[string]string `json:"sums,omitempty"`

	entry  remote.Entry // that it was read from
	config []byte       // Config, as it was read
}

func (s *solved) encode() ([]byte, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	return pack(b)
}

func decodeSolved(b []byte) (*solved, error) {
	plain, err := unpackJSON(b, maxSolverPlain)
	if err != nil {
		return nil, err
	}
	s, text := &solved{}, struct {
		Config json.RawMessage `json:"config"`
	}{}
	if err := errors.Join(json.Unmarshal(plain, s), json.Unmarshal(plain, &text)); err != nil {
		return nil, err
	}
	s.config = text.Config
	if s.Config == nil || len(s.Layers) > maxRecords {
		return nil, errors.New("it has no records, or too many")
	}
	for i, d := range s.Layers {
		if err := d.Digest.Validate(); err != nil || d.Size < 0 || images.IsNonDistributable(d.MediaType) {
			return nil, fmt.Errorf("layer %q is none", d.Digest)
		}
		s.Layers[i] = bare(d) // images get no links to other places by it
		s.Layers[i].Annotations = d.Annotations
	}
	return s, Bounded(s.Config)
}

// Bounded is an error if chains that somebody else has written are too many, or the layers of their results too many for the lists that BuildKit makes of them.
func Bounded(c *cacheimporttypes.CacheConfig) error {
	if len(c.Records) > maxRecords || len(c.Layers) > maxRecords {
		return errors.New("it has too many records")
	}
	depths := make([]int, len(c.Layers)) // 0: not known yet
	depth := func(i int) (int, error) {
		var way []int
		for ; i >= 0 && i < len(depths) && depths[i] == 0; i = c.Layers[i].ParentIndex {
			if way = append(way, i); len(way) > maxDepth {
				return 0, fmt.Errorf("more than %d layers lie on each other", maxDepth)
			}
		}
		n := 0
		if i >= 0 && i < len(depths) {
			n = depths[i]
		}
		for _, i := range slices.Backward(way) {
			n++
			depths[i] = n
		}
		return n, nil
	}
	all := 0
	for _, r := range c.Records {
		for _, res := range r.Results {
			n, err := depth(res.LayerIndex)
			if err != nil {
				return err
			}
			if all += n; n > maxDepth || all > maxResultSize {
				return errors.New("its results have too many layers")
			}
		}
		for _, res := range r.ChainedResults {
			if all += len(res.LayerIndexes); len(res.LayerIndexes) > maxDepth || all > maxResultSize {
				return errors.New("its results have too many layers")
			}
		}
	}
	return nil
}

// into adds the records to chains. Their layers come from a provider.
func (s *solved) into(chains solver.CacheExporterTarget, p content.Provider, ref string) error {
	layers := v1.DescriptorProvider{}
	for _, d := range s.Layers {
		d.Annotations = withoutSources(d.Annotations)
		d.Annotations[sourceRef] = ref
		layers[d.Digest] = v1.DescriptorProviderPair{Descriptor: d, Provider: partsProvider{p, ref}}
	}
	return v1.ParseConfig(*s.Config, layers, chains)
}

// sourceRef is the annotation by which BuildKit's worker learns with which image a layer was pulled. Which repositories layers are in is not for entries to say.
const sourceRef = labels.LabelDistributionSource + ".ref"

func withoutSources(annotations map[string]string) map[string]string {
	rest := map[string]string{}
	for k, v := range annotations {
		if !strings.HasPrefix(k, labels.LabelDistributionSource+".") {
			rest[k] = v
		}
	}
	return rest
}

// pack compresses; the same bytes give the same bytes.
func pack(b []byte) ([]byte, error) {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	if err != nil {
		return nil, err
	}
	defer w.Close()
	return w.EncodeAll(b, nil), nil
}

// unpack is the inverse of pack, for at most so many bytes.
func unpack(b []byte, most int) ([]byte, error) {
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(most)))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return r.DecodeAll(b, nil)
}

// unpackJSON is unpack for JSON that does not take much more memory than its bytes.
func unpackJSON(b []byte, most int) ([]byte, error) {
	plain, err := unpack(b, most)
	if err != nil {
		return nil, err
	}
	if err := chains.Values(plain); err != nil {
		return nil, err
	}
	return plain, nil
}
