package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/converter"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/util/compression"
	bkconverter "github.com/moby/buildkit/util/converter"
	"github.com/moby/buildkit/util/errutil"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/compress"
)

// ConvertOptions say what a conversion makes of an image.
type ConvertOptions struct {
	Compression compression.Config
	// Platform converts the image for one platform, without the index. Nil converts all that are in the store.
	Platform *ocispecs.Platform
}

// Converted is what a conversion made.
type Converted struct {
	Name   string // in full
	Target ocispecs.Descriptor
	// Layers counts the layers, Changed those that are new, of all platforms.
	Layers, Changed int
	// Bytes of the layers, before and after.
	Before, After int64
	// Left lists manifests that the new image does not have: attestations, which are about digests that are not its own, and platforms that are not here.
	Left []digest.Digest
}

// Convert gives an image whose layers are compressed in another way a name. The image is one of the store, or else is fetched from its registry. Files and
// configuration stay as they are, but for the digests of the layers.
func (s *Store) Convert(ctx context.Context, source, name string, o ConvertOptions) (c Converted, err error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return c, fmt.Errorf("parse image name %q: %w", name, err)
	}
	if _, ok := named.(reference.Digested); ok {
		return c, fmt.Errorf("convert to %q: a name with a digest can't be given", name)
	}
	c.Name = reference.TagNameOnly(named).String()
	t := s.task("converting %s", source)
	defer t.end(&err)
	defer func() {
		if err != nil {
			err = fmt.Errorf("convert %s: %w", source, errutil.WithDetails(err))
		}
	}()
	ctx, end, err := s.lease(ctx)
	if err != nil {
		return c, err
	}
	defer end(&err)
	target, err := s.source(ctx, t, source, o.Platform)
	if err != nil {
		return c, err
	}
	if err := s.convert(ctx, &c, target, o); err != nil {
		return c, err
	}
	if err := s.put(ctx, c.Name, c.Target); err != nil {
		return c, fmt.Errorf("name image: %w", err)
	}
	return c, nil
}

// source finds the image in the store, or fetches it without giving it a name.
func (s *Store) source(ctx context.Context, t *task, ref string, p *ocispecs.Platform) (ocispecs.Descriptor, error) {
	image, err := s.get(ctx, ref)
	if err == nil || !errors.Is(err, ErrNoImage) {
		return image.Target, err
	}
	named, nameErr := ParseName(ref)
	if nameErr != nil {
		return ocispecs.Descriptor{}, err
	}
	resolver := s.resolver()
	_, target, err := resolver.Resolve(ctx, named.String())
	if err != nil {
		return target, fmt.Errorf("it is not in the store; resolve: %w", err)
	}
	fetcher, err := resolver.Fetcher(ctx, named.String())
	if err != nil {
		return target, err
	}
	pull := PullOptions{}
	if p != nil {
		pull.Platforms = []ocispecs.Platform{*p}
	}
	if err := s.fetch(ctx, named.String(), countedFetcher{fetcher, t}, nil, target, pull); err != nil {
		return target, err
	}
	return target, s.checkPulled(ctx, target, pull)
}

func (s *Store) convert(ctx context.Context, c *Converted, target ocispecs.Descriptor, o ConvertOptions) error {
	v, err := s.survey(ctx, target)
	if err != nil {
		return err
	}
	list := v.manifests
	if o.Platform != nil {
		m, ok := v.find(*o.Platform)
		if !ok {
			return fmt.Errorf("%w %s", errNoPlatform, platforms.FormatAll(*o.Platform))
		}
		list = []manifest{m}
	}
	var made []ocispecs.Descriptor
	for _, m := range list {
		if m.attestation || !m.complete {
			c.Left = append(c.Left, m.desc.Digest)
			continue
		}
		d, err := s.convertManifest(ctx, c, m, o.Compression)
		if err != nil {
			return err
		}
		made = append(made, d)
	}
	switch {
	case len(made) == 0:
		return ErrIncomplete
	case o.Platform != nil || !images.IsIndexType(target.MediaType):
		c.Target = made[0]
		c.Target.Platform = nil
	default:
		c.Target, err = s.writeIndex(ctx, target, made)
	}
	return err
}

func (s *Store) convertManifest(ctx context.Context, c *Converted, m manifest, comp compression.Config) (ocispecs.Descriptor, error) {
	layer := func(ctx context.Context, blobs content.Store, d ocispecs.Descriptor) (*ocispecs.Descriptor, error) {
		if !images.IsLayerType(d.MediaType) {
			return nil, nil
		}
		f, err := bkconverter.New(ctx, blobs, d, comp)
		if f == nil || err != nil {
			return nil, err
		}
		from, err := compress.DropLandmark(ctx, blobs, d)
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", d.Digest, err)
		}
		if from.Digest != d.Digest { // a tar, which may be what is wanted
			if f, err = bkconverter.New(ctx, blobs, from, comp); err != nil {
				return nil, err
			}
			if f == nil {
				return &from, nil
			}
		}
		out, err := f(ctx, blobs, from)
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", d.Digest, err)
		}
		made, err := compress.Annotate(ctx, blobs, *out)
		if err != nil {
			return nil, err
		}
		delete(made.Annotations, labels.LabelUncompressed) // of BuildKit's own
		if len(made.Annotations) == 0 {
			made.Annotations = nil
		}
		return &made, nil
	}
	out, err := converter.DefaultIndexConvertFunc(layer, true, platforms.All)(ctx, s.Content, m.desc)
	if err != nil {
		return m.desc, err
	}
	if out == nil { // as it should be, already
		out = &m.desc
	}
	d := *out
	d.Platform, d.Annotations = m.desc.Platform, m.desc.Annotations
	var body ocispecs.Manifest
	if err := readJSON(ctx, s.Content, d, &body); err != nil {
		return d, err
	}
	for i, l := range body.Layers {
		c.Layers++
		c.Before += m.body.Layers[i].Size
		c.After += l.Size
		if l.Digest != m.body.Layers[i].Digest {
			c.Changed++
		}
	}
	return d, nil
}

// writeIndex writes an index of the given manifests, which otherwise is as the old one.
func (s *Store) writeIndex(ctx context.Context, old ocispecs.Descriptor, manifests []ocispecs.Descriptor) (ocispecs.Descriptor, error) {
	var was ocispecs.Index
	if err := readJSON(ctx, s.Content, old, &was); err != nil {
		return old, err
	}
	index := ocispecs.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageIndex, Manifests: manifests, Annotations: was.Annotations}
	b, err := json.Marshal(index)
	if err != nil {
		return old, err
	}
	held := map[string]string{}
	for i, m := range manifests {
		held[fmt.Sprintf("containerd.io/gc.ref.content.m.%d", i)] = m.Digest.String()
	}
	d := ocispecs.Descriptor{MediaType: index.MediaType, Digest: digest.FromBytes(b), Size: int64(len(b)), Annotations: old.Annotations}
	if err := content.WriteBlob(ctx, s.Content, d.Digest.String(), bytes.NewReader(b), d, content.WithLabels(held)); err != nil {
		return d, fmt.Errorf("write index: %w", err)
	}
	return d, nil
}
