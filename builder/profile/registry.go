package profile

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
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
)

// Registry keeps profiles beside their images at registries. Its methods may be called concurrently.
type Registry struct {
	hosts docker.RegistryHosts
}

// NewRegistry returns the registries that hosts resolves, with its credentials.
func NewRegistry(hosts docker.RegistryHosts) Registry { return Registry{hosts} }

// maxManifest bounds manifests and indexes. Registries refuse more than 4 MB (documented by distribution).
const maxManifest = 4 << 20

// Manifest resolves a name at its registry to the manifest of one platform, and tells the digest of the configuration that it has. ErrNoImage says that the registry does not have it.
func (r Registry) Manifest(ctx context.Context, named reference.Named, p ocispecs.Platform) (image ocispecs.Descriptor, config digest.Digest, err error) {
	image, fetcher, err := r.manifest(ctx, named, p)
	var m ocispecs.Manifest
	if err == nil {
		err = fetchJSON(ctx, fetcher, image, &m)
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
	if err := fetchJSON(ctx, fetcher, d, &index); err != nil {
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
	list, err := referrers(ctx, fetcher, image.Digest)
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
	if err := fetchJSON(ctx, fetcher, newest, &m); err != nil {
		return nil, err
	}
	if len(m.Layers) != 1 || m.Layers[0].MediaType != MediaType || m.Layers[0].Size > MaxBytes {
		return nil, fmt.Errorf("%s is no artifact with a profile", newest.Digest)
	}
	b, err := fetch(ctx, fetcher, m.Layers[0])
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
	blob := descriptor(MediaType, b)
	// Its media type is what registries that don't know artifactType list an artifact as.
	empty := []byte("{}")
	config := descriptor(MediaType, empty)
	annotations := map[string]string{ocispecs.AnnotationCreated: at.UTC().Format(time.RFC3339)}
	manifest, err := json.Marshal(ocispecs.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest, ArtifactType: MediaType,
		Config: config, Layers: []ocispecs.Descriptor{blob},
		Subject: &ocispecs.Descriptor{MediaType: image.MediaType, Digest: image.Digest, Size: image.Size}, Annotations: annotations,
	})
	if err != nil {
		return artifact, err
	}
	artifact = descriptor(ocispecs.MediaTypeImageManifest, manifest)
	pusher, err := r.resolver().Pusher(ctx, repository+"@"+artifact.Digest.String())
	if err != nil {
		return artifact, err
	}
	for _, one := range []struct {
		ocispecs.Descriptor
		content []byte
	}{{blob, b}, {config, empty}, {artifact, manifest}} {
		if err := push(ctx, pusher, one.Descriptor, one.content); err != nil {
			return artifact, err
		}
	}
	artifact.ArtifactType, artifact.Annotations = MediaType, annotations
	return artifact, r.list(ctx, repository, image.Digest, artifact)
}

// list sees to it that an artifact is found. A registry that knows the referrers API lists it by itself; for others the distribution specification has a tag, an index
// that clients write.
func (r Registry) list(ctx context.Context, repository string, image digest.Digest, artifact ocispecs.Descriptor) error {
	resolver := r.resolver()
	fetcher, err := resolver.Fetcher(ctx, repository+"@"+image.String())
	if err != nil {
		return err
	}
	listed, err := referrers(ctx, fetcher, image)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(listed, func(d ocispecs.Descriptor) bool { return d.Digest == artifact.Digest }) {
		return nil
	}
	tag := repository + ":" + strings.Replace(image.String(), ":", "-", 1)
	index := ocispecs.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageIndex}
	_, d, err := resolver.Resolve(ctx, tag)
	switch {
	case errdefs.IsNotFound(err):
	case err != nil:
		return err
	case !images.IsIndexType(d.MediaType):
		return fmt.Errorf("%s is no index of artifacts", tag)
	default:
		fetcher, err := resolver.Fetcher(ctx, tag)
		if err != nil {
			return err
		}
		if err := fetchJSON(ctx, fetcher, d, &index); err != nil {
			return err
		}
	}
	// Of ours, the new one only: an index that grows with each start of an image would end at the registry's limit.
	index.Manifests = slices.DeleteFunc(index.Manifests, func(d ocispecs.Descriptor) bool { return d.ArtifactType == MediaType })
	index.Manifests = append(index.Manifests, artifact)
	b, err := json.Marshal(index)
	if err != nil {
		return err
	}
	pusher, err := resolver.Pusher(ctx, tag)
	if err != nil {
		return err
	}
	return push(ctx, pusher, descriptor(ocispecs.MediaTypeImageIndex, b), b)
}

func (r Registry) resolver() remotes.Resolver {
	return docker.NewResolver(docker.ResolverOptions{Hosts: r.hosts, Tracker: docker.NewInMemoryTracker()})
}

// referrers lists the profiles of an image.
func referrers(ctx context.Context, f remotes.Fetcher, image digest.Digest) ([]ocispecs.Descriptor, error) {
	rf, ok := f.(remotes.ReferrersFetcher)
	if !ok {
		return nil, fmt.Errorf("%T can't list artifacts: %w", f, errors.ErrUnsupported)
	}
	list, err := rf.FetchReferrers(ctx, image, remotes.WithReferrerArtifactTypes(MediaType))
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	return list, err
}

func descriptor(mediaType string, b []byte) ocispecs.Descriptor {
	return ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
}

func push(ctx context.Context, p remotes.Pusher, d ocispecs.Descriptor, b []byte) error {
	w, err := p.Push(ctx, d)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer w.Close()
	err = content.Copy(ctx, w, bytes.NewReader(b), d.Size, d.Digest)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func fetchJSON(ctx context.Context, f remotes.Fetcher, d ocispecs.Descriptor, v any) error {
	if d.Size > maxManifest {
		return fmt.Errorf("%s has %d bytes: too many for a manifest", d.Digest, d.Size)
	}
	b, err := fetch(ctx, f, d)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("decode %s: %w", d.Digest, err)
	}
	return nil
}

// fetch reads a blob, the size of which is within bounds, and checks it.
func fetch(ctx context.Context, f remotes.Fetcher, d ocispecs.Descriptor) ([]byte, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, err
	}
	r, err := f.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, d.Size+1))
	if err != nil {
		return nil, err
	}
	if d.Digest.Algorithm().FromBytes(b) != d.Digest { // or it is shorter, or longer
		return nil, fmt.Errorf("what came is not %s", d.Digest)
	}
	return b, nil
}
