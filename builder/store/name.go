package store

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// danglingPrefix is what the names of images without a name begin with: "dangling@sha256:...", as BuildKit's image exporter
// writes them.
const danglingPrefix = DanglingPrefix + "@"

func danglingName(d digest.Digest) string { return danglingPrefix + d.String() }

func isDangling(name string) bool { return strings.HasPrefix(name, danglingPrefix) }

// ParseName returns the full form of a name as docker understands it: "app" is "docker.io/library/app:latest". With a tag
// and a digest, the digest counts.
func ParseName(s string) (reference.Named, error) {
	named, err := reference.ParseDockerRef(s)
	if err != nil {
		return nil, fmt.Errorf("parse image name %q: %w", s, err)
	}
	return named, nil
}

// Familiar returns the short form of a full name, as people write it.
func Familiar(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.FamiliarString(named)
}

// split returns a name's columns in a listing; what it lacks is "<none>".
func split(name string) (repository, tag string) {
	repository, tag = none, none
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil || isDangling(name) {
		return none, none
	}
	if t, ok := named.(reference.Tagged); ok {
		tag = t.Tag()
	}
	return reference.FamiliarName(named), tag
}

const none = "<none>"

var idPattern = regexp.MustCompile(`^(sha256:)?[0-9a-f]{1,64}$`)

// find returns the images that ref means: the one of that name, or else all names of the one whose id begins with ref.
func (s *Store) find(ctx context.Context, ref string) (found []images.Image, byID bool, err error) {
	named, nameErr := ParseName(ref)
	if nameErr == nil {
		image, err := s.Images.Get(ctx, named.String())
		if err == nil {
			return []images.Image{image}, false, nil
		}
		if !errdefs.IsNotFound(err) {
			return nil, false, fmt.Errorf("look up %s: %w", ref, err)
		}
	}
	if !idPattern.MatchString(ref) {
		if nameErr != nil {
			return nil, false, nameErr
		}
		return nil, false, fmt.Errorf("%w: %s", ErrNoImage, ref)
	}
	all, err := s.Images.List(ctx)
	if err != nil {
		return nil, false, fmt.Errorf("list images: %w", err)
	}
	prefix := strings.TrimPrefix(ref, "sha256:")
	for _, image := range all {
		if strings.HasPrefix(image.Target.Digest.Encoded(), prefix) {
			found = append(found, image)
		}
	}
	if len(found) == 0 {
		found = s.findByConfig(ctx, all, prefix)
	}
	if len(found) == 0 {
		return nil, false, fmt.Errorf("%w: %s", ErrNoImage, ref)
	}
	other := func(i images.Image) bool { return i.Target.Digest != found[0].Target.Digest }
	if slices.ContainsFunc(found, other) {
		return nil, false, fmt.Errorf("image id %s is ambiguous", ref)
	}
	return found, true, nil
}

// findByConfig returns the images one of whose configurations has a digest that begins with prefix: builds print and record
// that digest as the id, as dockers without containerd's image store do.
func (s *Store) findByConfig(ctx context.Context, all []images.Image, prefix string) (found []images.Image) {
	for _, image := range all {
		v, err := s.survey(ctx, image.Target)
		if err != nil {
			continue // damaged: known by name and by id only
		}
		if slices.ContainsFunc(v.images(), func(m manifest) bool { return strings.HasPrefix(m.body.Config.Digest.Encoded(), prefix) }) {
			found = append(found, image)
		}
	}
	return found
}

// get returns the one image that ref means.
func (s *Store) get(ctx context.Context, ref string) (images.Image, error) {
	found, _, err := s.find(ctx, ref)
	if err != nil {
		return images.Image{}, err
	}
	return found[0], nil
}
