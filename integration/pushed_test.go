package integration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/optbuild/optbuild/integration/wan"
)

// checkPushed validates every image that a script has pushed, as `crane validate` does: sizes, digests, and that the configuration tells of the layers that there are.
// Base images, which the harness pushes, are left out, and caches that are no valid images on purpose.
func (s *server) checkPushed(ctx context.Context, bases []string) error {
	s.mu.Lock()
	s.user, s.refused, s.held = "", nil, nil
	s.mu.Unlock()
	s.link.Set(wan.Profile{})
	s.far.Clear()
	reg, err := name.NewRegistry(s.Addr, name.Insecure)
	if err != nil {
		return err
	}
	repositories, err := remote.Catalog(ctx, reg)
	if err != nil {
		return fmt.Errorf("list what was pushed: %w", err)
	}
	var problems []error
	for _, r := range repositories {
		if slices.Contains(bases, r) || r == liesRepository {
			continue
		}
		repo := reg.Repo(r)
		tags, err := remote.List(repo, remote.WithContext(ctx))
		if err != nil {
			return fmt.Errorf("list what was pushed: %w", err)
		}
		for _, tag := range tags {
			if strings.HasPrefix(tag, "sha256-") { // where registries without the API keep referrers
				continue
			}
			if err := checkReference(ctx, repo.Tag(tag)); err != nil {
				problems = append(problems, fmt.Errorf("%s/%s:%s is no valid image: %w", s.Addr, r, tag, err))
			}
		}
	}
	return errors.Join(problems...)
}

func checkReference(ctx context.Context, ref name.Reference) error {
	d, err := remote.Get(ref, remote.WithContext(ctx))
	if err != nil {
		return err
	}
	if !d.MediaType.IsIndex() {
		img, err := d.Image()
		if err != nil {
			return err
		}
		return checkImage(img)
	}
	index, err := d.ImageIndex()
	if err != nil {
		return err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return err
	}
	if err := validate.Index(index, validate.Fast); err != nil {
		return err
	}
	for _, child := range m.Manifests {
		if !child.MediaType.IsImage() || child.Platform != nil && child.Platform.OS == "unknown" { // an attestation
			continue
		}
		img, err := index.Image(child.Digest)
		if err != nil {
			return err
		}
		if err := checkImage(img); err != nil {
			return err
		}
	}
	return nil
}

// mostToRead bounds the layers that are read again to compare digests: base images are large, and the same in every script.
const mostToRead = 16 << 20

// checkImage validates one image; what is no image (a cache, a profile) is left out.
func checkImage(img v1.Image) error {
	m, err := img.Manifest()
	if err != nil {
		return err
	}
	if !m.Config.MediaType.IsConfig() {
		return nil
	}
	var options []validate.Option
	for _, l := range m.Layers {
		// The library reads gzip only.
		if l.Size > mostToRead || l.MediaType != types.OCILayer && l.MediaType != types.DockerLayer {
			options = []validate.Option{validate.Fast}
		}
	}
	return validate.Image(img, options...)
}
