package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/util/errutil"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"github.com/optbuild/optbuild/builder/referrer"
)

// PushOptions say what of an image is pushed.
type PushOptions struct {
	// Platform pushes the manifest for one platform, without the index. Nil pushes the whole image, or, when only one
	// platform of it is in the store, that one.
	Platform *ocispecs.Platform
}

// Pushed is what a push made at the registry.
type Pushed struct {
	Name   string // in full
	Tag    string // or the digest, if the name has no tag
	Target ocispecs.Descriptor
	// Part is the platform that was pushed when the image in the store has more, but not all of their content.
	Part string
}

// ErrIncomplete is wrapped by the error of pushing or saving an image of which something is missing.
var ErrIncomplete = errors.New("part of the image is not in the store")

// Push copies an image to the registry that its name tells. The manifests go last, so that the name at the registry never
// means something incomplete.
func (s *Store) Push(ctx context.Context, ref string, o PushOptions) (pushed Pushed, err error) {
	named, err := ParseName(ref)
	if err != nil {
		return Pushed{}, err
	}
	image, err := s.Images.Get(ctx, named.String())
	if errdefs.IsNotFound(err) {
		return Pushed{}, fmt.Errorf("%w: %s", ErrNoImage, Familiar(named.String()))
	} else if err != nil {
		return Pushed{}, fmt.Errorf("look up %s: %w", ref, err)
	}
	t := s.task("pushing %s", image.Name)
	defer t.end(&err)
	defer func() {
		if err != nil {
			err = fmt.Errorf("push %s: %w", Familiar(image.Name), errutil.WithDetails(err))
		}
	}()
	ctx, end, err := s.lease(ctx, image.Target)
	if err != nil {
		return Pushed{}, err
	}
	defer end(&err)

	target, part, beside, err := s.pushable(ctx, image.Target, o.Platform)
	if err != nil {
		return Pushed{}, err
	}
	pushed = Pushed{Name: image.Name, Target: target, Part: part}
	name := image.Name
	switch n := named.(type) {
	case reference.Digested:
		pushed.Tag = n.Digest().String()
	case reference.Tagged:
		pushed.Tag = n.Tag()
		// With the digest the pusher knows which of the manifests gets the tag.
		name += "@" + target.Digest.String()
	}
	pusher, err := s.resolver().Pusher(ctx, name)
	if err != nil {
		return Pushed{}, err
	}
	err = remotes.PushContent(ctx, countedPusher{pusher, t}, target, s.Content, semaphore.NewWeighted(transfersAtOnce), platforms.All, nil)
	if err != nil {
		return Pushed{}, err
	}
	for _, a := range beside {
		if err := s.attach(ctx, reference.TrimNamed(named).Name(), a, t); err != nil {
			return Pushed{}, fmt.Errorf("%s beside the image: %w", a.desc.ArtifactType, err)
		}
	}
	return pushed, nil
}

// attach pushes an artifact into a repository that has what it is about.
func (s *Store) attach(ctx context.Context, repository string, a manifest, t *task) error {
	pusher, err := s.resolver().Pusher(ctx, repository+"@"+a.desc.Digest.String())
	if err != nil {
		return err
	}
	if err := remotes.PushContent(ctx, countedPusher{pusher, t}, a.desc, s.Content, semaphore.NewWeighted(transfersAtOnce), platforms.All, nil); err != nil {
		return err
	}
	if a.attestation { // a build makes one, and the last one counts
		return referrer.Announce(ctx, s.resolver(), repository, a.about, a.desc)
	}
	return referrer.Add(ctx, s.resolver(), repository, a.about, a.desc)
}

// pushable returns what to push of an image, and the artifacts beside that; part is not empty when that is less than all.
func (s *Store) pushable(ctx context.Context, target ocispecs.Descriptor, p *ocispecs.Platform) (_ ocispecs.Descriptor, part string, beside []manifest, _ error) {
	v, err := s.survey(ctx, target)
	if err != nil {
		return target, "", nil, err
	}
	about := func(m manifest) []manifest {
		return slices.DeleteFunc(slices.Clone(v.beside), func(a manifest) bool { return a.about != m.desc.Digest })
	}
	if p != nil {
		m, ok := v.find(*p)
		if !ok {
			return target, "", nil, fmt.Errorf("%w %s", errNoPlatform, platforms.FormatAll(*p))
		}
		return m.desc, "", about(m), nil
	}
	if v.complete {
		return target, "", v.beside, nil
	}
	complete := v.images()
	if len(complete) != 1 || complete[0].desc.Digest == target.Digest {
		return target, "", nil, ErrIncomplete
	}
	return complete[0].desc, platforms.FormatAll(complete[0].platform), about(complete[0]), nil
}

// Tags returns the names in the store that belong to the repository of ref, in the order of the store.
func (s *Store) Tags(ctx context.Context, ref string) ([]string, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, fmt.Errorf("parse image name %q: %w", ref, err)
	}
	if !reference.IsNameOnly(named) {
		return nil, fmt.Errorf("image name %q: a tag can't be used with all tags", ref)
	}
	all, err := s.Images.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var names []string
	for _, image := range all {
		n, err := reference.ParseNormalizedNamed(image.Name)
		if _, tagged := n.(reference.Tagged); err == nil && tagged && n.Name() == named.Name() {
			names = append(names, image.Name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNoImage, ref)
	}
	return names, nil
}

// countedPusher reports what is pushed.
type countedPusher struct {
	remotes.Pusher
	task *task
}

func (p countedPusher) Push(ctx context.Context, d ocispecs.Descriptor) (content.Writer, error) {
	return p.count(d)(p.Pusher.Push(ctx, d))
}

// Writer makes the pusher a content.Ingester, as the resolver's own is: two pushes of one blob wait for each other.
func (p countedPusher) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	if in, ok := p.Pusher.(content.Ingester); ok {
		return p.count(o.Desc)(in.Writer(ctx, opts...))
	}
	return p.Push(ctx, o.Desc)
}

func (p countedPusher) count(d ocispecs.Descriptor) func(content.Writer, error) (content.Writer, error) {
	return func(w content.Writer, err error) (content.Writer, error) {
		if errdefs.IsAlreadyExists(err) {
			p.task.blob("exists", d.Digest, d.Size).done()
		}
		if err != nil {
			return nil, err
		}
		return &countedWriter{Writer: w, blob: p.task.blob("push", d.Digest, d.Size)}, nil
	}
}

type countedWriter struct {
	content.Writer
	blob *transfer
}

func (w *countedWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.blob.add(n)
	return n, err
}

func (w *countedWriter) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	err := w.Writer.Commit(ctx, size, expected, opts...)
	if err == nil || errdefs.IsAlreadyExists(err) {
		w.blob.done()
	}
	return err
}
