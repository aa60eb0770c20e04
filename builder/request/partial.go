package request

import (
	"github.com/moby/buildkit/client"

	"github.com/optbuild/optbuild/builder/index"
)

// part has the image pushed by its digest, into the repository of the index that it is to be a part of. Nobody sees it by a name until it is joined.
func (r *Request) part(s *Solve) error {
	if len(r.Tags) > 0 {
		return flagErrorf("partial", r.Partial, "says the name; --tag and --partial exclude each other")
	}
	if r.Push || r.Load || len(nonEmpty(r.Outputs)) > 0 {
		return flagErrorf("partial", r.Partial, "is the output; --output, --push, --load and --partial exclude each other")
	}
	named, err := index.ParseTag(r.Partial)
	if err != nil {
		return flagErrorf("partial", r.Partial, "%w", err)
	}
	s.Partial = named
	s.Exports = append(s.Exports, client.ExportEntry{Type: client.ExporterImage, Attrs: map[string]string{
		"name": named.Name(), "push": "true", "push-by-digest": "true", "name-canonical": "true", "store": "false",
	}})
	return r.finishOutputs(s)
}
