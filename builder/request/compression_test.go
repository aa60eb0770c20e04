package request

import (
	"strings"
	"testing"

	"github.com/optbuild/optbuild/builder/compress"
)

func TestCompression(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, test := range map[string]struct {
		r    Request
		want string // of the outputs: what they are told about compression; or an error
	}{
		"default":                   {Request{}, "compression=gzip"},
		"as docker":                 {Request{Exact: true}, ""},
		"level of the default":      {Request{CompressionLevel: "9"}, "compression=gzip compression-level=9"},
		"as docker, level":          {Request{Exact: true, CompressionLevel: "1"}, "compression-level=1"},
		"zstd":                      {Request{Compression: "zstd", CompressionLevel: "19"}, "compression=zstd compression-level=19"},
		"force":                     {Request{Compression: "zstd", ForceCompression: true}, "compression=zstd force-compression=true"},
		"estargz":                   {Request{Compression: "estargz"}, "compression=estargz force-compression=true oci-mediatypes=true"},
		"zstd:chunked":              {Request{Compression: "zstd:chunked"}, "compression=zstd force-compression=true oci-mediatypes=true optbuild-chunked=true"},
		"zstd:chunked, by output":   {Request{Outputs: []string{"type=image,compression=zstd:chunked,force-compression=false"}}, "compression=zstd force-compression=false oci-mediatypes=true optbuild-chunked=true"},
		"estargz, not forced":       {Request{Outputs: []string{"type=image,compression=estargz,force-compression=false"}}, "compression=estargz force-compression=false oci-mediatypes=true"},
		"estargz, docker's types":   {Request{Compression: "estargz", Outputs: []string{"type=image,oci-mediatypes=false"}}, "--output oci-mediatypes=false: estargz needs OCI media types, which hold its annotations"},
		"the output counts":         {Request{Compression: "zstd", Outputs: []string{"type=image,compression=gzip"}}, "compression=gzip"},
		"uncompressed":              {Request{Compression: "uncompressed"}, "compression=uncompressed"},
		"uncompressed, level":       {Request{Compression: "uncompressed", CompressionLevel: "1"}, "--compression-level 1: uncompressed has no levels"},
		"level too high":            {Request{CompressionLevel: "10"}, "--compression-level 10: levels of gzip are 0 to 9"},
		"level of an output":        {Request{Outputs: []string{"type=image,compression=zstd,compression-level=0"}}, "--output compression-level=0: levels of zstd are 1 to 22"},
		"no number":                 {Request{CompressionLevel: "fast"}, `--compression-level fast: "fast" is not a number`},
		"unknown":                   {Request{Compression: "xz"}, `--compression xz: "xz" is not gzip, zstd, estargz, zstd:chunked or uncompressed`},
		"unknown, without an image": {Request{Compression: "xz", Outputs: []string{"d"}}, `--compression xz: "xz" is not gzip, zstd, estargz, zstd:chunked or uncompressed`},
		"unknown, of an output":     {Request{Outputs: []string{"type=image,compression=xz"}}, `--output compression=xz: "xz" is not gzip, zstd, estargz, zstd:chunked or uncompressed`},
		"no image":                  {Request{Compression: "zstd", Outputs: []string{"d"}}, "warning there are no layers to compress: no output is an image"},
	} {
		t.Run(name, func(t *testing.T) {
			r := test.r
			r.Context, r.File, r.Stdin, r.Tags = ".", "-", strings.NewReader("FROM x"), []string{"app"}
			s, err := New(t.Context(), r, "dockerfile.v0")
			if err != nil {
				if err.Error() != test.want {
					t.Errorf("got  %v\nwant %s", err, test.want)
				}
				return
			}
			defer s.Discard()
			var got []string
			for _, w := range strings.Fields(describe(s)) {
				if strings.HasPrefix(w, "compression") || strings.HasPrefix(w, "force-compression=") || strings.HasPrefix(w, "oci-mediatypes=") || strings.HasPrefix(w, "optbuild-chunked=") {
					got = append(got, w)
				}
			}
			if len(s.Warnings) > 0 && strings.Contains(s.Warnings[0], "compress") {
				got = append(got, "warning "+s.Warnings[0])
			}
			if text := strings.Join(got, " "); text != test.want {
				t.Errorf("got  %s\nwant %s", text, test.want)
			}
			attrs, ok := compress.ParseExport(s.FrontendAttrs)
			if image := s.Exports[0].Attrs["compression"]; ok && attrs["compression"] != image {
				t.Errorf("the engine is told of %q, the exporter of %q", attrs["compression"], image)
			}
		})
	}
}
