package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// Tag gives the image that source means another name. An image that had the name before loses it.
func (s *Store) Tag(ctx context.Context, source, target string) (err error) {
	named, err := reference.ParseNormalizedNamed(target)
	if err != nil {
		return fmt.Errorf("parse image name %q: %w", target, err)
	}
	if _, ok := named.(reference.Digested); ok {
		return fmt.Errorf("tag with %q: a name with a digest can't be given", target)
	}
	image, err := s.get(ctx, source)
	if err != nil {
		return err
	}
	ctx, end, err := s.lease(ctx, image.Target)
	if err != nil {
		return err
	}
	defer end(&err)
	if err := s.put(ctx, reference.TagNameOnly(named).String(), image.Target); err != nil {
		return fmt.Errorf("tag %s: %w", target, err)
	}
	return nil
}

// Removed is what Remove did: a name that is gone or, in Deleted, the id of an image whose last name it was.
type Removed struct {
	Untagged string        `json:",omitempty"`
	Deleted  digest.Digest `json:",omitempty"`
}

// ErrInUse is wrapped by the error of removing an image by its id when it has several names.
var ErrInUse = errors.New("image has several names")

// Remove takes away a name or, given an id, an image with its name (with force, with all its names). The content of an
// image that has no name left is deleted, unless a build's cache uses it.
func (s *Store) Remove(ctx context.Context, ref string, force bool) ([]Removed, error) {
	found, byID, err := s.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	if byID && len(found) > 1 && !force && severalRepositories(found) {
		return nil, fmt.Errorf("remove %s: %w", ref, ErrInUse)
	}
	all, err := s.Images.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	id := found[0].Target.Digest
	names := 0
	for _, image := range all {
		if image.Target.Digest == id {
			names++
		}
	}
	var removed []Removed
	for _, image := range found {
		var opts []images.DeleteOpt
		last := names == 1
		if last {
			opts = append(opts, images.SynchronousDelete())
		}
		if err := s.Images.Delete(ctx, image.Name, opts...); errdefs.IsNotFound(err) {
			continue // somebody was faster
		} else if err != nil {
			return removed, fmt.Errorf("remove %s: %w", Familiar(image.Name), err)
		}
		names--
		if !isDangling(image.Name) {
			removed = append(removed, Removed{Untagged: Familiar(image.Name)})
		}
		if last {
			removed = append(removed, Removed{Deleted: id})
		}
	}
	return removed, nil
}

func severalRepositories(found []images.Image) bool {
	first, _ := split(found[0].Name)
	return slices.ContainsFunc(found, func(i images.Image) bool {
		repository, _ := split(i.Name)
		return repository != first
	})
}
