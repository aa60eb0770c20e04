package request

import (
	"slices"

	"github.com/moby/buildkit/client"

	"github.com/optbuild/optbuild/builder/export"
	"github.com/optbuild/optbuild/builder/export/strip"
)

// layers tells the exporters of images what to do to layers.
func (r *Request) layers(s *Solve) error {
	squash := export.SquashOff
	var err error
	if r.Squash != "" {
		if squash, err = export.ParseSquash(r.Squash); err != nil {
			return flagErrorf("squash", r.Squash, "%w", err)
		}
	}
	var rules strip.Set
	if r.Strip != "" {
		if rules, err = strip.Parse(r.Strip); err != nil {
			return flagErrorf("strip", r.Strip, "%w", err)
		}
	}
	if squash == export.SquashOff && len(rules) == 0 {
		return nil
	}
	// The cache in an image says which of its layers is which step's.
	if slices.ContainsFunc(s.CacheExports, func(e client.CacheOptionsEntry) bool { return e.Type == "inline" }) {
		s.Warnings = append(s.Warnings, "layers are left as they are: the image is a cache (type=inline), which needs a layer for each step")
		return nil
	}
	kept := ""
	if len(r.Kept) > 0 && len(rules) > 0 {
		if kept, err = export.FormatKept(r.Kept); err != nil {
			return err
		}
	}
	for _, e := range s.Exports {
		if e.Type == client.ExporterImage || e.Type == client.ExporterOCI || e.Type == client.ExporterDocker {
			e.Attrs[export.AttrSquash] = string(squash)
			e.Attrs[export.AttrStrip] = rules.String()
			if kept != "" {
				e.Attrs[export.AttrKept] = kept
			}
		}
	}
	return nil
}
