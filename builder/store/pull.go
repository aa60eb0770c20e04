package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/util/errutil"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"github.com/optbuild/optbuild/builder/referrer"
)

// PullOptions say what of an image is pulled.
type PullOptions struct {
	// Platforms to pull. None means the one that fits the host best.
	Platforms []ocispecs.Platform
	// AllPlatforms pulls the whole index, attestations included, and what is beside it and its manifests: artifacts that refer to them.
	AllPlatforms bool
}

// Pulled is the result of a pull.
type Pulled struct {
	Name   string // in full
	Digest digest.Digest
	// UpToDate says that the name had this digest before.
	UpToDate bool
	// Unlisted is why artifacts beside the image, of which all were to be pulled, could not be listed; nil if they could.
	Unlisted error
}

// errNoPlatform is wrapped by errors about a platform for which there is no complete image.
var errNoPlatform = errors.New("no image for platform")

// transfersAtOnce is how many blobs move at the same time; registries begin to refuse at more.
const transfersAtOnce = 6

// Pull copies an image from a registry and gives it its name. On an error the store is as it was.
func (s *Store) Pull(ctx context.Context, ref string, o PullOptions) (pulled Pulled, err error) {
	named, err := ParseName(ref)
	if err != nil {
		return Pulled{}, err
	}
	name := named.String()
	t := s.task("pulling %s", name)
	defer t.end(&err)
	defer func() {
		if err != nil {
			err = fmt.Errorf("pull %s: %w", Familiar(name), errutil.WithDetails(err))
		}
	}()

	resolver := s.resolver()
	_, target, err := resolver.Resolve(ctx, name)
	if err != nil {
		return Pulled{}, fmt.Errorf("resolve: %w", err)
	}
	fetcher, err := resolver.Fetcher(ctx, name)
	if err != nil {
		return Pulled{}, err
	}
	ctx, end, err := s.lease(ctx)
	if err != nil {
		return Pulled{}, err
	}
	defer end(&err)

	beside := &besideRemote{fetcher: fetcher}
	if err := s.fetch(ctx, name, countedFetcher{fetcher, t}, beside, target, o); err != nil {
		return Pulled{}, err
	}
	if err := s.checkPulled(ctx, target, o); err != nil {
		return Pulled{}, err
	}
	before, err := s.Images.Get(ctx, name)
	if err != nil && !errdefs.IsNotFound(err) {
		return Pulled{}, err
	}
	if err := s.put(ctx, name, target); err != nil {
		return Pulled{}, fmt.Errorf("name image: %w", err)
	}
	return Pulled{Name: name, Digest: target.Digest, UpToDate: before.Target.Digest == target.Digest, Unlisted: beside.failed()}, nil
}

func (s *Store) fetch(ctx context.Context, name string, fetcher remotes.Fetcher, beside *besideRemote, target ocispecs.Descriptor, o PullOptions) error {
	origin, err := docker.AppendDistributionSourceLabel(s.Content, name)
	if err != nil {
		return err
	}
	// The labels name all children, so that those that are pulled later are held as well; which are pulled now is the
	// filters' choice.
	children := images.ChildrenHandler(s.Content)
	if o.AllPlatforms {
		children = images.SetReferrers(beside, children)
	}
	children = images.SetChildrenLabels(s.Content, children)
	switch {
	case o.AllPlatforms:
	case len(o.Platforms) > 0:
		children = images.FilterPlatforms(children, platforms.Ordered(o.Platforms...))
	default:
		children = images.FilterPlatforms(children, platforms.Default())
		children = images.LimitManifests(children, platforms.Default(), 1)
	}
	return images.Dispatch(ctx, images.Handlers(
		images.HandlerFunc(checkSize),
		remotes.FetchHandler(s.Content, fetcher),
		children,
		origin,
	), semaphore.NewWeighted(transfersAtOnce), target)
}

// besideRemote lists artifacts at a registry, of all types. A registry that refuses costs them, not the image.
type besideRemote struct {
	fetcher remotes.Fetcher

	mu  sync.Mutex
	err error
}

func (b *besideRemote) Referrers(ctx context.Context, d ocispecs.Descriptor) ([]ocispecs.Descriptor, error) {
	if _, artifact := d.Annotations[images.AnnotationManifestSubject]; artifact { // what is about artifacts is left
		return nil, nil
	}
	list, err := referrer.List(ctx, b.fetcher, d.Digest)
	if err != nil && ctx.Err() == nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.err = err
		return nil, nil
	}
	return slices.DeleteFunc(list, func(d ocispecs.Descriptor) bool { return !images.IsManifestType(d.MediaType) }), err
}

func (b *besideRemote) failed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// checkPulled makes sure that each platform that was asked for came.
func (s *Store) checkPulled(ctx context.Context, target ocispecs.Descriptor, o PullOptions) error {
	v, err := s.survey(ctx, target)
	if err != nil {
		return err
	}
	for _, p := range o.Platforms {
		if _, ok := v.find(p); !ok {
			return fmt.Errorf("%w %s", errNoPlatform, platforms.FormatAll(p))
		}
	}
	if len(v.images()) == 0 {
		return fmt.Errorf("%w %s", errNoPlatform, platforms.DefaultString())
	}
	return nil
}

func checkSize(_ context.Context, d ocispecs.Descriptor) ([]ocispecs.Descriptor, error) {
	if (images.IsManifestType(d.MediaType) || images.IsIndexType(d.MediaType)) && d.Size > maxManifestBytes {
		return nil, fmt.Errorf("%s (%s) has %d bytes: too many", d.Digest, d.MediaType, d.Size)
	}
	return nil, nil
}

// countedFetcher reports what is fetched.
type countedFetcher struct {
	remotes.Fetcher
	task *task
}

func (f countedFetcher) Fetch(ctx context.Context, d ocispecs.Descriptor) (io.ReadCloser, error) {
	rc, err := f.Fetcher.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	return counted(rc, f.task.blob("pull", d.Digest, d.Size)), nil
}
