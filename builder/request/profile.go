package request

import (
	"slices"

	"github.com/moby/buildkit/client"

	"github.com/optbuild/optbuild/builder/compress"
	"github.com/optbuild/optbuild/builder/profile"
)

// prioritized tells those who make layers that can be pulled lazily, in the background or for the export, which files come first.
func (r *Request) prioritized(s *Solve) error {
	if len(r.Prioritized) == 0 {
		return nil
	}
	value, err := profile.FormatPrioritized(r.Prioritized)
	if err != nil {
		return err
	}
	for _, e := range s.Exports {
		if f, err := compress.Parse(e.Attrs[attrCompression]); err == nil && f == compress.EStargz {
			e.Attrs[profile.AttrPrioritized] = value
		}
	}
	image := slices.IndexFunc(s.Exports, func(e client.ExportEntry) bool {
		return e.Type == client.ExporterImage || e.Type == client.ExporterOCI || e.Type == client.ExporterDocker
	})
	if _, ok := s.FrontendAttrs[compress.AttrExport]; ok && image >= 0 { // the first image's, as compression has set it
		s.FrontendAttrs[compress.AttrExport], err = compress.FormatExport(s.Exports[image].Attrs)
	}
	return err
}
