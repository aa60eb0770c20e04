package store

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// Image is one name in the store. The name of an image without one is "<none>".
type Image struct {
	// Name in full; Repository and Tag are the parts of its familiar form.
	Name       string
	Repository string
	Tag        string
	// ID is the target's digest.
	ID digest.Digest
	// Created is the time that the configuration says, or else that at which the name was made.
	Created time.Time
	// Bytes is the size of the blobs that are in the store, as they are (that is, mostly compressed).
	Bytes int64
	// Platforms that are complete.
	Platforms []string
	Dangling  bool
}

// ListOptions restrict a listing; zero lists all.
type ListOptions struct {
	// References are patterns such as "app", "app:1.*" or "*/app", any of which has to match.
	References []string
	// Dangling, if not nil, lists only images that have no name, or only those that have one.
	Dangling *bool
}

// List returns the images in the store, newest first.
func (s *Store) List(ctx context.Context, o ListOptions) ([]Image, error) {
	all, err := s.Images.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var list []Image
	for _, image := range all {
		i := Image{Name: image.Name, ID: image.Target.Digest, Created: image.CreatedAt, Dangling: isDangling(image.Name)}
		i.Repository, i.Tag = split(image.Name)
		if i.Dangling {
			i.Name = none
		}
		if ok, err := o.match(image.Name); err != nil {
			return nil, err
		} else if !ok {
			continue
		}
		v, err := s.survey(ctx, image.Target)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		_ = err // a damaged image is listed without its details: it can be removed or pulled again
		i.Bytes = v.bytes
		if m, ok := v.main(); ok && m.config != nil && m.config.Created != nil && !m.config.Created.IsZero() {
			i.Created = *m.config.Created
		}
		for _, m := range v.images() {
			i.Platforms = append(i.Platforms, platforms.FormatAll(m.platform))
		}
		list = append(list, i)
	}
	slices.SortFunc(list, func(a, b Image) int {
		return cmp.Or(b.Created.Compare(a.Created), strings.Compare(a.Name, b.Name), strings.Compare(a.ID.String(), b.ID.String()))
	})
	return list, nil
}

func (o ListOptions) match(name string) (bool, error) {
	if o.Dangling != nil && *o.Dangling != isDangling(name) {
		return false, nil
	}
	if len(o.References) == 0 {
		return true, nil
	}
	named, err := reference.ParseNormalizedNamed(name)
	nameless := err != nil || isDangling(name)
	for _, pattern := range o.References {
		if _, err := path.Match(pattern, ""); err != nil {
			return false, fmt.Errorf("match pattern %q: %w", pattern, err)
		}
		if nameless {
			continue
		}
		if ok, err := reference.FamiliarMatch(pattern, named); err == nil && ok {
			return true, nil
		}
	}
	return false, nil
}
