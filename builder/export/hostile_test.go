package export

import (
	"math"
	"testing"

	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestFits has sizes that a hostile cache says: their sum is right, where integers overflow.
func TestFits(t *testing.T) {
	u := unit{first: 0, last: 2, steps: make([]step, 3)}
	for _, c := range []struct {
		sizes []int
		want  bool
	}{
		{[]int{3}, true}, {[]int{1, 2}, true}, {nil, false}, {[]int{1, 1}, false}, {[]int{4}, false}, {[]int{0, 3}, false}, {[]int{-1, 4}, false},
		{[]int{math.MaxInt, math.MaxInt, 5}, false},
	} {
		if got := u.fits(c.sizes); got != c.want {
			t.Errorf("%d: %t", c.sizes, got)
		}
	}
}

// TestOutcomeCheck has outcomes that others pass on and that would end the engine, or send readers of an image elsewhere.
func TestOutcomeCheck(t *testing.T) {
	desc := func(change func(*ocispecs.Descriptor)) *ocispecs.Descriptor {
		d := &ocispecs.Descriptor{
			MediaType: ocispecs.MediaTypeImageLayerZstd, Digest: digest.FromString("layer"), Size: 1, URLs: []string{"http://metadata.test/"}, Data: []byte("x"),
			Annotations: map[string]string{
				labels.LabelUncompressed: digest.FromString("content").String(), "x": "y", labels.LabelDistributionSource + ".a.test": "b",
				estargz.TOCJSONDigestAnnotation: digest.FromString("table").String(),
			},
		}
		change(d)
		return d
	}
	as := func(*ocispecs.Descriptor) {}
	for name, c := range map[string]struct {
		o    outcome
		good bool
	}{
		"nothing":              {outcome{}, true},
		"a layer":              {outcome{Desc: desc(as), Stripped: []Stripped{{Rule: "x"}}}, true},
		"left out of nothing":  {outcome{Stripped: []Stripped{{Rule: "x"}}}, false},
		"no digest":            {outcome{Desc: desc(func(d *ocispecs.Descriptor) { d.Digest = "sha256:../x" })}, false},
		"no digest of content": {outcome{Desc: desc(func(d *ocispecs.Descriptor) { d.Annotations = nil })}, false},
		"a size below nothing": {outcome{Desc: desc(func(d *ocispecs.Descriptor) { d.Size = -1 })}, false},
		"no layer":             {outcome{Desc: desc(func(d *ocispecs.Descriptor) { d.MediaType = ocispecs.MediaTypeImageManifest })}, false},
		"not to be passed on":  {outcome{Desc: desc(func(d *ocispecs.Descriptor) { d.MediaType = "application/vnd.oci.image.layer.nondistributable.v1.tar" })}, false},
	} {
		if err := c.o.check(1); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
		if err := c.o.check(2); c.o.Desc == nil && err == nil {
			t.Errorf("%s: two layers that have become none", name)
		}
		if c.good && c.o.Desc != nil && (c.o.Desc.URLs != nil || c.o.Desc.Data != nil || len(c.o.Desc.Annotations) != 2) {
			t.Errorf("%s: still says %+v", name, c.o.Desc)
		}
	}
}
