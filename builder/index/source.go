package index

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/referrer"
)

// source is an image or an index at its registry.
type source struct {
	named   reference.Named
	root    ocispecs.Descriptor
	raw     []byte
	whole   *ocispecs.Index // nil for an image
	entries []ocispecs.Descriptor
	fetcher remotes.Fetcher
}

func (r Registry) source(ctx context.Context, ref string) (source, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return source{}, fmt.Errorf("%s is not [registry/]repository[:tag|@digest]: %w", ref, err)
	}
	s := source{named: named}
	if s.root, s.fetcher, err = r.resolve(ctx, named); err != nil {
		if errdefs.IsNotFound(err) {
			err = ErrNotFound
		}
		return s, fmt.Errorf("look up %s: %w", reference.FamiliarString(named), err)
	}
	var raw json.RawMessage
	if err := referrer.FetchJSON(ctx, s.fetcher, s.root, &raw); err != nil {
		return s, fmt.Errorf("read %s: %w", reference.FamiliarString(named), err)
	}
	s.raw = raw
	if images.IsIndexType(s.root.MediaType) {
		s.whole = &ocispecs.Index{}
		if err := json.Unmarshal(raw, s.whole); err != nil {
			return s, fmt.Errorf("decode %s: %w", s.root.Digest, err)
		}
		s.entries = s.whole.Manifests
		return s, nil
	}
	if s.entries, err = entries(ctx, s.fetcher, s.root); err != nil {
		return s, fmt.Errorf("read %s: %w", reference.FamiliarString(named), err)
	}
	return s, nil
}

// sources reads them, and takes what is wanted of them.
func (r Registry) sources(ctx context.Context, o CreateOptions) (list []source, err error) {
	for _, ref := range o.Sources {
		s, err := r.source(ctx, ref)
		if err != nil {
			return nil, err
		}
		s.entries = wanted(s.entries, o.Platforms)
		list = append(list, s)
	}
	return list, nil
}

// wanted are the entries of platforms, with their attestations; all, if none is named.
func wanted(entries []ocispecs.Descriptor, list []ocispecs.Platform) []ocispecs.Descriptor {
	if len(list) == 0 {
		return entries
	}
	is := func(d ocispecs.Descriptor) bool {
		return referrer.Subject(d) == "" && d.Platform != nil && slices.ContainsFunc(list, func(p ocispecs.Platform) bool { return platforms.OnlyStrict(p).Match(*d.Platform) })
	}
	var out []ocispecs.Descriptor
	for _, d := range entries {
		of := referrer.Subject(d)
		if is(d) || of != "" && slices.ContainsFunc(entries, func(m ocispecs.Descriptor) bool { return is(m) && m.Digest == of }) {
			out = append(out, d)
		}
	}
	return out
}
