package profile

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/util/errutil"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/referrer"
)

// Registry keeps profiles beside their images at registries. Its methods may be called concurrently.
type Registry struct {
	hosts docker.RegistryHosts
}

// NewRegistry returns the registries that hosts resolves, with its credentials.
func NewRegistry(hosts docker.RegistryHosts) Registry { return Registry{hosts} }

// Manifest resolves a name at its registry to the manifest of one platform, and tells the digest of the configuration that it has. ErrNoImage says that the registry does not have it.
func (r Registry) Manifest(ctx context.Context, named reference.Named, p ocispecs.Platform) (image ocispecs.Descriptor, config digest.Digest, err error) {
	image, fetcher, err := r.manifest(ctx, named, p)
	var m ocispecs.Manifest
	if err == nil {
		err = referrer.FetchJSON(ctx, fetcher, image, &m)
	}
	if errdefs.IsNotFound(err) {
		err = ErrNoImage
	}
	if err != nil {
		return image, "", fmt.Errorf("look up %s: %w", reference.FamiliarString(named), errutil.WithDetails(err))
	}
	return image, m.Config.Digest, nil
}

// ErrNoImage says that a registry has no such image.
var ErrNoImage = errors.New("it is not there")

func (r Registry) manifest(ctx context.Context, named reference.Named, p ocispecs.Platform) (ocispecs.Descriptor, remotes.Fetcher, error) {
	name := reference.TagNameOnly(named).String()
	resolver := r.resolver()
	_, d, err := resolver.Resolve(ctx, name)
	if err != nil {
		return d, nil, err
	}
	fetcher, err := resolver.Fetcher(ctx, name)
	if err != nil {
		return d, nil, err
	}
	if !images.IsIndexType(d.MediaType) {
		return d, fetcher, nil
	}
	var index ocispecs.Index
	if err := referrer.FetchJSON(ctx, fetcher, d, &index); err != nil {
		return d, nil, err
	}
	matcher := platforms.Only(p)
	var fitting []ocispecs.Descriptor
	for _, m := range index.Manifests {
		if m.Platform != nil && matcher.Match(*m.Platform) {
			fitting = append(fitting, m)
		}
	}
	if len(fitting) == 0 {
		return d, nil, fmt.Errorf("it has nothing for %s: %w", platforms.FormatAll(p), errdefs.ErrNotFound)
	}
	slices.SortStableFunc(fitting, func(a, b ocispecs.Descriptor) int {
		switch {
		case matcher.Less(*a.Platform, *b.Platform):
			return -1
		case matcher.Less(*b.Platform, *a.Platform):
			return 1
		}
		return 0
	})
	return fitting[0], fetcher, nil
}

// Find returns the profile that was attached last to the image that has a name now. ErrNone says that there is no such image, or no profile of it.
func (r Registry) Find(ctx context.Context, named reference.Named, p ocispecs.Platform) (*Profile, error) {
	found, err := r.find(ctx, named, p)
	if errdefs.IsNotFound(err) {
		err = ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("profile of %s at its registry: %w", reference.FamiliarString(named), errutil.WithDetails(err))
	}
	return found, nil
}

func (r Registry) find(ctx context.Context, named reference.Named, p ocispecs.Platform) (*Profile, error) {
	image, fetcher, err := r.manifest(ctx, named, p)
	if err != nil {
		return nil, err
	}
	list, err := referrer.List(ctx, fetcher, image.Digest, MediaType)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, ErrNone
	}
	newest := slices.MaxFunc(list, func(a, b ocispecs.Descriptor) int {
		return cmp.Or(created(a).Compare(created(b)), cmp.Compare(a.Digest, b.Digest))
	})
	var m ocispecs.Manifest
	if err := referrer.FetchJSON(ctx, fetcher, newest, &m); err != nil {
		return nil, err
	}
	if len(m.Layers) != 1 || m.Layers[0].MediaType != MediaType || m.Layers[0].Size > MaxBytes {
		return nil, fmt.Errorf("%s is no artifact with a profile", newest.Digest)
	}
	b, err := referrer.Fetch(ctx, fetcher, m.Layers[0])
	if err != nil {
		return nil, err
	}
	return Decode(b)
}

func created(d ocispecs.Descriptor) time.Time {
	t, _ := time.Parse(time.RFC3339, d.Annotations[ocispecs.AnnotationCreated])
	return t
}

// Attach puts a profile beside an image, a manifest in the repository of named, and returns the artifact that it made.
func (r Registry) Attach(ctx context.Context, named reference.Named, image ocispecs.Descriptor, p *Profile, at time.Time) (ocispecs.Descriptor, error) {
	d, err := r.attach(ctx, named.Name(), image, p, at)
	if err != nil {
		return d, fmt.Errorf("attach profile to %s: %w", reference.FamiliarString(named), errutil.WithDetails(err))
	}
	return d, nil
}

func (r Registry) attach(ctx context.Context, repository string, image ocispecs.Descriptor, p *Profile, at time.Time) (artifact ocispecs.Descriptor, err error) {
	b, err := Encode(p)
	if err != nil {
		return artifact, err
	}
	blob := referrer.Descriptor(MediaType, b)
	// Its media type is what registries that don't know artifactType list an artifact as.
	empty := []byte("{}")
	config := referrer.Descriptor(MediaType, empty)
	annotations := map[string]string{ocispecs.AnnotationCreated: at.UTC().Format(time.RFC3339)}
	manifest, err := json.Marshal(ocispecs.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest, ArtifactType: MediaType,
		Config: config, Layers: []ocispecs.Descriptor{blob},
		Subject: &ocispecs.Descriptor{MediaType: image.MediaType, Digest: image.Digest, Size: image.Size}, Annotations: annotations,
	})
	if err != nil {
		return artifact, err
	}
	artifact = referrer.Descriptor(ocispecs.MediaTypeImageManifest, manifest)
	pusher, err := r.resolver().Pusher(ctx, repository+"@"+artifact.Digest.String())
	if err != nil {
		return artifact, err
	}
	for _, one := range []struct {
		ocispecs.Descriptor
		content []byte
	}{{blob, b}, {config, empty}, {artifact, manifest}} {
		if err := referrer.Push(ctx, pusher, one.Descriptor, one.content); err != nil {
			return artifact, err
		}
	}
	artifact.ArtifactType, artifact.Annotations = MediaType, annotations
	return artifact, referrer.Announce(ctx, r.resolver(), repository, image.Digest, artifact)
}

func (r Registry) resolver() remotes.Resolver {
	return docker.NewResolver(docker.ResolverOptions{Hosts: r.hosts, Tracker: docker.NewInMemoryTracker()})
}
