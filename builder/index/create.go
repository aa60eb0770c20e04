package index

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/util/errutil"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/referrer"
)

// CreateOptions say what an index is made of.
type CreateOptions struct {
	// Sources are names, with tag or digest, of images and indexes at registries.
	Sources []string
	// Platforms restricts what is taken of them; nil takes all.
	Platforms []ocispecs.Platform
	// Append adds to what the tag refers to, as Join does, instead of replacing it.
	Append      bool
	Annotations []Annotation
	// DryRun makes the index, and copies and writes nothing.
	DryRun bool
}

// Create makes an index of images, copies what is not in the tags' repositories, and gives it the tags. An index that is the only source, and from which nothing is
// taken away, is copied as it is.
func (r Registry) Create(ctx context.Context, tags []reference.NamedTagged, o CreateOptions) ([]Result, error) {
	sources, err := r.sources(ctx, o)
	if err != nil {
		return nil, err
	}
	var parts []ocispecs.Descriptor
	if len(sources) == 1 && !o.Append {
		parts = sources[0].entries // all of them, also several for a platform
	} else {
		for _, s := range sources {
			parts = union(parts, s.entries)
		}
	}
	for _, p := range o.Platforms {
		if len(wanted(parts, []ocispecs.Platform{p})) == 0 {
			return nil, fmt.Errorf("make index: none of the sources has %s", platforms.FormatAll(p))
		}
	}
	if len(parts) == 0 {
		return nil, errors.New("make index: the sources are empty")
	}
	var results []Result
	for _, t := range tags {
		made, err := r.create(ctx, t, sources, parts, o)
		if err != nil {
			return results, fmt.Errorf("make index %s: %w", reference.FamiliarString(t), errutil.WithDetails(err))
		}
		results = append(results, made)
	}
	return results, nil
}

func (r Registry) create(ctx context.Context, t reference.NamedTagged, sources []source, parts []ocispecs.Descriptor, o CreateOptions) (Result, error) {
	x := ocispecs.Index{Manifests: parts}
	whole := len(sources) == 1 && sources[0].whole != nil && len(sources[0].whole.Manifests) == len(parts) && !o.Append
	if whole {
		x = *sources[0].whole
		x.Manifests = slices.Clone(x.Manifests)
	}
	if err := annotate(&x, o.Annotations); err != nil {
		return Result{}, err
	}
	mediaType, b, err := encode(x)
	if err != nil {
		return Result{}, err
	}
	if whole && len(o.Annotations) == 0 {
		b = sources[0].raw
	}
	add := func(now *ocispecs.Index) error {
		now.Manifests = union(now.Manifests, parts)
		return annotate(now, o.Annotations)
	}
	at := tag{r.hosts, t}
	if o.DryRun && o.Append {
		now, err := at.get(ctx)
		if err == nil {
			x, err = r.changed(ctx, t, now, add)
		}
		if err == nil {
			_, b, err = encode(x)
		}
		if err != nil {
			return Result{}, err
		}
	}
	if o.DryRun {
		return Result{t.String(), digest.FromBytes(b), x, b}, nil
	}
	for _, s := range sources {
		if s.named.Name() == t.Name() {
			continue
		}
		for _, d := range s.entries {
			if err := r.copyTo(ctx, s.fetcher, d, t); err != nil {
				return Result{}, fmt.Errorf("copy %s: %w", d.Digest, err)
			}
			if err := r.copyBeside(ctx, s, d, t); err != nil {
				return Result{}, fmt.Errorf("copy the attestations of %s: %w", d.Digest, err)
			}
		}
	}
	if o.Append {
		return r.change(ctx, t, add)
	}
	before, err := at.head(ctx)
	if err != nil {
		return Result{}, err
	}
	d := digest.FromBytes(b)
	if before.digest != d {
		if err := at.put(ctx, mediaType, b, before); err != nil {
			return Result{}, err
		}
	}
	return Result{Name: t.String(), Digest: d, Index: x}, nil
}

// copyBeside copies the attestations that an entry has beside it. Those in the index are entries themselves.
func (r Registry) copyBeside(ctx context.Context, s source, d ocispecs.Descriptor, to reference.Named) error {
	if referrer.Subject(d) != "" {
		return nil
	}
	list, err := referrer.Attestations(ctx, s.fetcher, d.Digest)
	if err != nil {
		return err
	}
	for _, a := range list {
		if slices.ContainsFunc(s.entries, func(d ocispecs.Descriptor) bool { return d.Digest == a.Digest }) {
			continue
		}
		if err := r.copyTo(ctx, s.fetcher, a, to); err != nil {
			return err
		}
		if err := referrer.Announce(ctx, r.resolver(), to.Name(), d.Digest, a); err != nil {
			return err
		}
	}
	return nil
}

// Inspection is what a name refers to at its registry.
type Inspection struct {
	Name      string            `json:"name"` // in full
	MediaType string            `json:"mediaType"`
	Digest    digest.Digest     `json:"digest"`
	Size      int64             `json:"size"`
	Raw       []byte            `json:"-"` // as it came
	Entries   []InspectedEntry  `json:"manifests"`
	Annotated map[string]string `json:"annotations,omitempty"`
}

// InspectedEntry is one entry of an index, or the image itself.
type InspectedEntry struct {
	Name        string            `json:"name"` // with its digest
	MediaType   string            `json:"mediaType"`
	Platform    string            `json:"platform,omitempty"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	// Attests is the digest of what an attestation is about.
	Attests digest.Digest `json:"attests,omitempty"`
	// Attestations are those that the entry has beside it at its registry, as referrers.
	Attestations []digest.Digest `json:"attestations,omitempty"`
	// Unlisted says why the registry did not tell them.
	Unlisted string `json:"unlisted,omitempty"`
}

// Inspect shows what a name refers to.
func (r Registry) Inspect(ctx context.Context, ref string) (Inspection, error) {
	s, err := r.source(ctx, ref)
	if err != nil {
		return Inspection{}, err
	}
	i := Inspection{Name: s.named.String(), MediaType: s.root.MediaType, Digest: s.root.Digest, Size: s.root.Size, Raw: s.raw}
	if s.whole != nil {
		i.Annotated = s.whole.Annotations
	}
	for _, d := range s.entries {
		e := InspectedEntry{
			Name: s.named.Name() + "@" + d.Digest.String(), MediaType: d.MediaType, Platform: platform(d), Size: d.Size, Annotations: d.Annotations, Attests: referrer.Subject(d),
		}
		if e.Attests == "" { // those in the index are listed by registries, too: they have a subject
			list, err := referrer.Attestations(ctx, s.fetcher, d.Digest)
			if err != nil {
				e.Unlisted = errutil.WithDetails(err).Error()
			}
			for _, a := range list {
				if !slices.ContainsFunc(s.entries, func(d ocispecs.Descriptor) bool { return d.Digest == a.Digest }) {
					e.Attestations = append(e.Attestations, a.Digest)
				}
			}
		}
		i.Entries = append(i.Entries, e)
	}
	return i, nil
}
