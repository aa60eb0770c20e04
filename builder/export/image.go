package export

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/progress"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/builder/export/strip"
)

// merge returns the source with new layers.
func (m *Merger) merge(ctx context.Context, src *exporter.Source, o Options, cfg *exporter.Config, s session.Group) (_ *exporter.Source, r Report, refs references, err error) {
	defer func() {
		if err != nil {
			refs.release()
		}
	}()
	off, told := src.Metadata[OffKey]
	o = o.without(string(off))
	ps, err := exptypes.ParsePlatforms(src.Metadata)
	if o.nothing() || err != nil || cfg == nil {
		return src, r, nil, nil // what is wrong with the source is for BuildKit to say
	}
	out := src.Clone()
	for _, p := range ps.Platforms {
		ref, ok := src.FindRef(p.ID)
		if !ok || ref == nil {
			continue
		}
		name := exptypes.ExporterImageConfigKey + "/" + p.ID
		if _, ok := src.Metadata[name]; !ok {
			name = exptypes.ExporterImageConfigKey
		}
		base := exptypes.ParseKey(src.Metadata, exptypes.ExporterImageBaseConfigKey, &p)
		j := &job{Merger: m, comp: cfg.Compression(), session: s}
		var (
			ref2   *merged
			config []byte
			img    Image
		)
		if len(base) > 0 || told { // else it begins with scratch, or the frontend is one that tells nothing of base images
			ref2, config, img, err = j.image(ctx, ref, src.Metadata[name], base, o)
		} else {
			err = fmt.Errorf("%w: the frontend does not say which are the base image's", errUnsupported)
		}
		switch {
		case err != nil && (ctx.Err() != nil || errors.Is(err, syscall.ENOSPC)):
			return nil, r, refs, err
		case err != nil && strings.Contains(err.Error(), unverified):
			return nil, r, refs, fmt.Errorf("%w: it came from a cache that is wrong, and was kept; `optbuild prune -a` drops it", err)
		case err != nil: // as it is, it is right
			logrus.WithError(err).Debug("merge layers")
			img = Image{Alone: err.Error()}
		case ref2 != nil:
			refs = append(refs, ref2)
			out.Metadata[name] = config
			replace(out, ref, ref2)
		}
		img.Platform = p.ID
		r.Images = append(r.Images, img)
	}
	return out, r, refs, nil
}

// unverified is in the text of BuildKit's error of a layer that has not the content that its record says (cache/refs.go). An image with it would lack files.
const unverified = "failed to verify layer"

// replace puts a result in the place of another one.
func replace(src *exporter.Source, old, ref cache.ImmutableRef) {
	if src.Ref == old {
		src.Ref = ref
	}
	for k, r := range src.Refs {
		if r == old {
			src.Refs[k] = ref
		}
	}
}

// image makes the new layers of one platform's image; nil if it stays as it is.
func (j *job) image(ctx context.Context, ref cache.ImmutableRef, config, baseConfig []byte, o Options) (_ *merged, _ []byte, img Image, err error) {
	c, steps, release, err := j.begin(ctx, ref, config, baseConfig, o)
	if err != nil {
		return nil, nil, img, err
	}
	defer release()
	chain := j.chain
	for _, s := range steps {
		if s.kind == run {
			img.Runs++
		}
	}
	if img.Runs == 0 && o.Squash != SquashStage {
		return nil, nil, img, nil
	}
	new := &merged{ImmutableRef: ref, content: j.Content}
	defer func() {
		if err != nil {
			err = errors.Join(err, new.release(context.WithoutCancel(ctx)))
		}
	}()
	history := slices.Clone(c.History)
	stays := j.base // how many layers stay as they are
	done := progress.OneOff(ctx, "merging layers")
	for _, whole := range unitsOf(steps, j.base, o.Squash) {
		g, err := j.group(ctx, whole, o.Squash)
		if err != nil {
			return nil, nil, img, done(err)
		}
		for _, u := range g.parts {
			if stays, err = j.unit(ctx, g, u, stays, new, history, &img); err != nil {
				return nil, nil, img, done(err)
			}
		}
		j.pass(g)
	}
	_ = done(nil)
	if len(new.records) == 0 {
		return nil, nil, img, nil
	}
	if new.below, err = j.segments(ctx, ref, chain[:stays]); err != nil {
		return nil, nil, img, err
	}
	if config, err = withHistory(config, history); err != nil {
		return nil, nil, img, err
	}
	return new, config, img, nil
}

// begin reads what the work on one platform's image begins with: its configuration, and the steps that lie on the base image. The layers are held until release is called.
func (j *job) begin(ctx context.Context, ref cache.ImmutableRef, config, baseConfig []byte, o Options) (c dockerspec.DockerOCIImage, steps []step, release func(), err error) {
	var base dockerspec.DockerOCIImage
	if err := json.Unmarshal(config, &c); err != nil {
		return c, nil, nil, fmt.Errorf("%w: read image configuration: %w", errUnsupported, err)
	}
	if len(baseConfig) > 0 {
		if err := json.Unmarshal(baseConfig, &base); err != nil {
			return c, nil, nil, fmt.Errorf("%w: read the base image's configuration: %w", errUnsupported, err)
		}
	}
	chain := ref.LayerChain()
	j.chain, j.base = chain, len(base.RootFS.DiffIDs)
	if steps, err = stepsOf(c.History, base.History, j.base, len(chain)); err != nil {
		chain.Release(context.WithoutCancel(ctx))
		return c, nil, nil, err
	}
	for _, s := range steps {
		j.kinds = append(j.kinds, s.kind)
	}
	j.strip = strip.New(o.Strip, strip.Config(c.Config), o.Kept...)
	return c, steps, func() { chain.Release(context.WithoutCancel(ctx)) }, nil
}

// unit adds the layer of a part to the image, and returns how many of the image's lowest layers stay as they are.
func (j *job) unit(ctx context.Context, g *group, u unit, stays int, new *merged, history []ocispecs.History, img *Image) (int, error) {
	alone := u.first == u.last
	if stays == u.first && alone && (u.steps[0].kind != run || j.strip.Empty()) {
		g.outcomes[u.first] = outcome{}
		return stays + 1, nil
	}
	before := j.computed
	out, err := j.outcomeOf(ctx, g, u, stays != u.first)
	if err != nil {
		return stays, err
	}
	if stays == u.first && alone && len(out.Stripped) == 0 {
		return stays + 1, nil
	}
	rec, err := j.record(ctx, u, out, g.handlers[u.first])
	if err != nil {
		return stays, err
	}
	new.records, new.descs = append(new.records, rec), append(new.descs, *out.Desc)
	var created []time.Time
	for i := range u.steps {
		created = append(created, j.chain[u.first+i].GetCreatedAt())
	}
	u.describe(history, created, out.Stripped)
	if alone && len(out.Stripped) == 0 {
		return stays, nil
	}
	if j.computed == before {
		img.Reused++
	}
	l := Layer{Digest: out.Desc.Digest.String(), Bytes: out.Desc.Size, Stripped: out.Stripped, Runs: u.runs()}
	for _, s := range u.steps {
		l.Steps = append(l.Steps, shortened(s.text))
	}
	img.Layers = append(img.Layers, l)
	return stays, nil
}
