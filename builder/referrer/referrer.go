// Package referrer lists artifacts beside the images that they are about: what OCI calls referrers.
//
// An artifact is a manifest whose *subject* is another manifest of its repository. What comes in is one that was pushed already; what goes out is that others find it by its
// subject. A registry with the referrers API lists it by itself. For others the distribution specification has a tag, sha256-HEX of the subject: an index that clients write.
// The package knows nothing of what is in an artifact. Its weak place is that index: the specification has no lock, so of two clients that write it at the same moment
// one may lose.
package referrer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaxManifest bounds manifests and indexes. Registries refuse more than 4 MB (documented by distribution).
const MaxManifest = 4 << 20

// List lists the artifacts about a manifest; of some types only, if any are given. There may be none.
func List(ctx context.Context, f remotes.Fetcher, subject digest.Digest, types ...string) ([]ocispecs.Descriptor, error) {
	rf, ok := f.(remotes.ReferrersFetcher)
	if !ok {
		return nil, fmt.Errorf("%T can't list artifacts: %w", f, errors.ErrUnsupported)
	}
	var o []remotes.FetchReferrersOpt
	if len(types) > 0 {
		o = append(o, remotes.WithReferrerArtifactTypes(types...))
	}
	list, err := rf.FetchReferrers(ctx, subject, o...)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	return list, err
}

// Announce sees to it that an artifact in a repository is found. Where that is for the client to do, it takes the place of others of its type.
func Announce(ctx context.Context, resolver remotes.Resolver, repository string, subject digest.Digest, artifact ocispecs.Descriptor) error {
	return announce(ctx, resolver, repository, subject, artifact, true)
}

// Add does so for an artifact that others of its type are beside, such as one signature of several.
func Add(ctx context.Context, resolver remotes.Resolver, repository string, subject digest.Digest, artifact ocispecs.Descriptor) error {
	return announce(ctx, resolver, repository, subject, artifact, false)
}

func announce(ctx context.Context, resolver remotes.Resolver, repository string, subject digest.Digest, artifact ocispecs.Descriptor, replace bool) error {
	fetcher, err := resolver.Fetcher(ctx, repository+"@"+subject.String())
	if err != nil {
		return err
	}
	listed, err := List(ctx, fetcher, subject) // of all types: some registries don't know artifactType
	if err != nil {
		return err
	}
	if slices.ContainsFunc(listed, func(d ocispecs.Descriptor) bool { return d.Digest == artifact.Digest }) {
		return nil
	}
	tag := repository + ":" + strings.Replace(subject.String(), ":", "-", 1)
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
		if err := FetchJSON(ctx, fetcher, d, &index); err != nil {
			return err
		}
	}
	// Of its type, the new one only: an index that grows with each build, or each start of an image, would end at the registry's limit.
	if replace {
		index.Manifests = slices.DeleteFunc(index.Manifests, func(d ocispecs.Descriptor) bool { return d.ArtifactType == artifact.ArtifactType })
	}
	index.Manifests = append(index.Manifests, artifact)
	b, err := json.Marshal(index)
	if err != nil {
		return err
	}
	pusher, err := resolver.Pusher(ctx, tag)
	if err != nil {
		return err
	}
	return Push(ctx, pusher, Descriptor(ocispecs.MediaTypeImageIndex, b), b)
}

// Descriptor is that of a blob.
func Descriptor(mediaType string, b []byte) ocispecs.Descriptor {
	return ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
}

// Push sends a blob, if it is not there.
func Push(ctx context.Context, p remotes.Pusher, d ocispecs.Descriptor, b []byte) error {
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

// FetchJSON decodes a manifest or an index.
func FetchJSON(ctx context.Context, f remotes.Fetcher, d ocispecs.Descriptor, v any) error {
	if d.Size > MaxManifest {
		return fmt.Errorf("%s has %d bytes: too many for a manifest", d.Digest, d.Size)
	}
	b, err := Fetch(ctx, f, d)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("decode %s: %w", d.Digest, err)
	}
	return nil
}

// Fetch reads a blob, the size of which is within bounds, and checks it.
func Fetch(ctx context.Context, f remotes.Fetcher, d ocispecs.Descriptor) ([]byte, error) {
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
