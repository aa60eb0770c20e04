package index

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/util/contentutil"
	"github.com/moby/buildkit/util/errutil"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/referrer"
)

// Registry changes indexes at registries. Its methods may be called concurrently.
type Registry struct {
	hosts  docker.RegistryHosts
	timing timing
}

// New returns the registries that hosts resolves, with its credentials.
func New(hosts docker.RegistryHosts) Registry { return Registry{hosts, usual} }

// Result is an index as it is at its registry.
type Result struct {
	Name   string // in full, with the tag
	Digest digest.Digest
	Index  ocispecs.Index
	Raw    []byte // of a dry run: the bytes that would have been written
}

// Platforms lists those that the index has, without attestations.
func (r Result) Platforms() (list []string) {
	for _, d := range r.Index.Manifests {
		if referrer.Subject(d) == "" {
			list = append(list, platform(d))
		}
	}
	return list
}

// ErrNotFound is wrapped by errors about what is not at its registry.
var ErrNotFound = errors.New("it is not there")

// ParseTag reads the name of an index: a repository with a tag, which is "latest" if it is not said.
func ParseTag(ref string) (reference.NamedTagged, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, fmt.Errorf("is not [registry/]repository[:tag]: %w", err)
	}
	if _, ok := named.(reference.Digested); ok {
		return nil, errors.New("names a digest; a tag is wanted")
	}
	return reference.TagNameOnly(named).(reference.NamedTagged), nil
}

// Join adds what was pushed to the repository of ref, by its digest, to the index that ref refers to, and returns when others that join at the same time can't undo it. What ref
// has for other platforms stays. It does nothing if all is there already.
func (r Registry) Join(ctx context.Context, ref reference.NamedTagged, part digest.Digest) (Result, error) {
	digested, err := reference.WithDigest(reference.TrimNamed(ref), part)
	if err != nil {
		return Result{}, err
	}
	root, fetcher, err := r.resolve(ctx, digested)
	if err != nil {
		return Result{}, fmt.Errorf("look up %s: %w", digested, err)
	}
	parts, err := entries(ctx, fetcher, root)
	if err != nil {
		return Result{}, fmt.Errorf("read %s: %w", digested, err)
	}
	return r.change(ctx, ref, func(x *ocispecs.Index) error {
		x.Manifests = union(x.Manifests, parts)
		return nil
	})
}

// Annotate changes the annotations of an index and of its entries.
func (r Registry) Annotate(ctx context.Context, ref reference.NamedTagged, list []Annotation) (Result, error) {
	return r.change(ctx, ref, func(x *ocispecs.Index) error {
		if len(x.Manifests) == 0 {
			return fmt.Errorf("%s: %w", reference.FamiliarString(ref), ErrNotFound)
		}
		return annotate(x, list)
	})
}

// change applies f to the index that a tag refers to, or to an empty one. An image without index counts as one of its own platform.
func (r Registry) change(ctx context.Context, ref reference.NamedTagged, f func(*ocispecs.Index) error) (Result, error) {
	x, d, err := tag{r.hosts, ref}.change(ctx, r.timing, func(ctx context.Context, now seen) (ocispecs.Index, error) { return r.changed(ctx, ref, now, f) })
	if err != nil {
		return Result{}, fmt.Errorf("change index %s: %w", reference.FamiliarString(ref), errutil.WithDetails(err))
	}
	return Result{Name: ref.String(), Digest: d, Index: x}, nil
}

// changed is what f makes of what a tag refers to.
func (r Registry) changed(ctx context.Context, ref reference.NamedTagged, now seen, f func(*ocispecs.Index) error) (x ocispecs.Index, err error) {
	switch {
	case now.digest == "":
	case isIndex(now.mediaType, now.content):
		if err := json.Unmarshal(now.content, &x); err != nil {
			return x, fmt.Errorf("decode %s: %w", now.digest, err)
		}
	default:
		digested, err := reference.WithDigest(reference.TrimNamed(ref), now.digest)
		if err != nil {
			return x, err
		}
		root, fetcher, err := r.resolve(ctx, digested)
		if err != nil {
			return x, err
		}
		if x.Manifests, err = entries(ctx, fetcher, root); err != nil {
			return x, err
		}
	}
	if x.MediaType == images.MediaTypeDockerSchema2ManifestList {
		x.MediaType = "" // which it is depends on what is in it
	}
	return x, f(&x)
}

func (r Registry) resolver() remotes.Resolver {
	return docker.NewResolver(docker.ResolverOptions{Hosts: r.hosts, Tracker: docker.NewInMemoryTracker()})
}

func (r Registry) resolve(ctx context.Context, ref reference.Named) (ocispecs.Descriptor, remotes.Fetcher, error) {
	resolver := r.resolver()
	_, d, err := resolver.Resolve(ctx, ref.String())
	if err != nil {
		return d, nil, errutil.WithDetails(err)
	}
	f, err := resolver.Fetcher(ctx, ref.String())
	return d, f, err
}

// isIndex tells an index from an image. What the registry says of its type counts less than what is in it.
func isIndex(mediaType string, content []byte) bool {
	var m struct {
		MediaType string               `json:"mediaType"`
		Manifests []json.RawMessage    `json:"manifests"`
		Config    *ocispecs.Descriptor `json:"config"`
	}
	if json.Unmarshal(content, &m) != nil || m.Config != nil {
		return false
	}
	if m.MediaType != "" {
		mediaType = m.MediaType
	}
	return images.IsIndexType(mediaType)
}

// entries returns what an index with a root in it has: the root's own entries, or the root with its platform.
func entries(ctx context.Context, f remotes.Fetcher, root ocispecs.Descriptor) ([]ocispecs.Descriptor, error) {
	root = ocispecs.Descriptor{MediaType: root.MediaType, Digest: root.Digest, Size: root.Size}
	if images.IsIndexType(root.MediaType) {
		var x ocispecs.Index
		if err := referrer.FetchJSON(ctx, f, root, &x); err != nil {
			return nil, err
		}
		return x.Manifests, nil
	}
	if !images.IsManifestType(root.MediaType) {
		return nil, fmt.Errorf("%s is no image: its type is %s", root.Digest, root.MediaType)
	}
	var m ocispecs.Manifest
	if err := referrer.FetchJSON(ctx, f, root, &m); err != nil {
		return nil, err
	}
	var c ocispecs.Image
	if err := referrer.FetchJSON(ctx, f, m.Config, &c); err != nil {
		return nil, err
	}
	if c.OS == "" || c.Architecture == "" {
		return nil, fmt.Errorf("%s does not say which platform it is for", root.Digest)
	}
	p := platforms.Normalize(c.Platform)
	root.Platform = &p
	return []ocispecs.Descriptor{root}, nil
}

// copyTo copies an entry and all that belongs to it to another repository.
func (r Registry) copyTo(ctx context.Context, f remotes.Fetcher, d ocispecs.Descriptor, to reference.Named) error {
	digested, err := reference.WithDigest(reference.TrimNamed(to), d.Digest)
	if err != nil {
		return err
	}
	pusher, err := r.resolver().Pusher(ctx, digested.String())
	if err != nil {
		return err
	}
	return contentutil.CopyChain(ctx, contentutil.FromPusher(pusher), contentutil.FromFetcher(f), d)
}
