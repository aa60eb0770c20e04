package chains

import (
	"errors"
	"io"
	"strings"
	"testing"

	v1 "github.com/moby/buildkit/cache/remotecache/v1"
	cacheimporttypes "github.com/moby/buildkit/cache/remotecache/v1/types"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestBuffer: an index that is as large as one may be is taken; one byte more is not.
func TestBuffer(t *testing.T) {
	b, spaces := &Buffer{}, []byte(strings.Repeat(" ", 1<<20))
	if _, err := b.Write([]byte("{}")); err != nil {
		t.Fatal(err)
	}
	for range MaxBytes>>20 - 1 {
		if _, err := b.Write(spaces); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Write(spaces[2:]); err != nil {
		t.Error(err)
	}
	if _, err := b.Decode(); err != nil {
		t.Error(err)
	}
	if n, err := b.Write(spaces[:1]); n != 0 || err == nil || err.Error() != "it is larger than 64 MiB" {
		t.Errorf("one byte more: %d, error %v", n, err)
	}
	if b.text.Len() != MaxBytes {
		t.Errorf("it has %d bytes", b.text.Len())
	}
}

// TestWrong has indexes that are not used.
func TestWrong(t *testing.T) {
	layer := func(blob, diffID, mediaType, size string) string {
		return `{"layers":[{"blob":"` + blob + `","annotations":{"mediaType":"` + mediaType + `","diffID":"` + diffID + `","size":` + size + `}}]}`
	}
	sum, gzip := "sha256:"+strings.Repeat("0", 64), "application/vnd.oci.image.layer.v1.tar+gzip"
	for name, test := range map[string]struct{ text, want string }{
		"right":       {layer(sum, sum, gzip, "1"), ""},
		"cut":         {`{"layers":[`, "unexpected end of JSON input"},
		"many values": {`{"records":[` + strings.Repeat("{},", MaxValues/2) + `{}]}`, "it has more than 1048576 values"},
		"unsaid":      {`{"layers":[{"blob":"` + sum + `"}]}`, "nothing is said of layer"},
		"no digest":   {layer("../x", sum, gzip, "1"), "is none"},
		"no diff":     {layer(sum, "", gzip, "1"), "is none"},
		"no layer":    {layer(sum, sum, "text/plain", "1"), "is none"},
		"no size":     {layer(sum, sum, gzip, "-1"), "is none"},
		"refused":     {`{"records":[{"digest":"` + sum + `"}]}`, "it is refused"},
	} {
		check := func(c *cacheimporttypes.CacheConfig) error {
			if len(c.Records) > 0 {
				return errors.New("it is refused")
			}
			return nil
		}
		b := &Buffer{}
		if _, err := io.WriteString(b, test.text); err != nil {
			t.Fatal(err)
		}
		index, err := b.Decode()
		if err == nil {
			err = Add(index, check, func(ocispecs.Descriptor) (p v1.DescriptorProviderPair) { return p }, v1.NewCacheChains())
		}
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
	}
}
