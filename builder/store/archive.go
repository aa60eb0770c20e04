package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/go-archive/compression"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/referrer"
	"github.com/optbuild/optbuild/builder/store/api"
)

// SaveOptions say what of the images is saved.
type SaveOptions struct {
	// Platform restricts the archive to one platform; nil takes all that are complete.
	Platform *ocispecs.Platform
}

// Save writes images to w as one archive that is an OCI layout and has docker's manifest.json as well, like the archives
// of `docker save`.
func (s *Store) Save(ctx context.Context, w io.Writer, refs []string, o SaveOptions) (err error) {
	var all []images.Image
	var held []ocispecs.Descriptor
	for _, ref := range refs {
		found, byID, err := s.find(ctx, ref)
		if err != nil {
			return err
		}
		image := found[0]
		if byID {
			image.Name = "" // docker save: an image that is named by its id is saved without a name
		}
		all = append(all, image)
		held = append(held, image.Target)
	}
	ctx, end, err := s.lease(ctx, held...)
	if err != nil {
		return err
	}
	defer end(&err)

	beside := besides{}
	opts := []archive.ExportOpt{archive.WithSkipMissing(s.Content), archive.WithSkipNonDistributableBlobs(), archive.WithReferrersProvider(beside)}
	var best []ocispecs.Platform // manifest.json tells of one platform for each image
	for i, image := range all {
		v, err := s.survey(ctx, image.Target)
		if err != nil {
			return fmt.Errorf("save %s: %w", refs[i], err)
		}
		m, ok := v.main()
		if o.Platform != nil {
			if m, ok = v.find(*o.Platform); !ok {
				return fmt.Errorf("save %s: %w %s", refs[i], errNoPlatform, platforms.FormatAll(*o.Platform))
			}
		}
		if !ok {
			return fmt.Errorf("save %s: %w", refs[i], ErrIncomplete)
		}
		for _, a := range v.beside {
			at := a.about
			if at == image.Target.Digest {
				at = m.desc.Digest // containerd's archiver asks for artifacts beside manifests only; what this one is about says its subject
			}
			beside[at] = append(beside[at], a.desc)
		}
		best = append(best, m.platform)
		if image.Name == "" || isDangling(image.Name) {
			opts = append(opts, archive.WithManifest(image.Target))
		} else {
			opts = append(opts, archive.WithManifest(image.Target, image.Name))
		}
	}
	if o.Platform != nil {
		opts = append(opts, archive.WithPlatform(platforms.OnlyStrict(*o.Platform)))
	} else {
		opts = append(opts, archive.WithPlatform(preferring{platforms.Ordered(best...)}), archive.WithAllPlatforms())
	}
	if err := archive.Export(ctx, s.Content, w, opts...); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	return nil
}

// preferring takes every platform, in the order of its matcher.
type preferring struct{ platforms.MatchComparer }

func (p preferring) Match(ocispecs.Platform) bool { return true }

// besides are the artifacts beside manifests, by digests of these.
type besides map[digest.Digest][]ocispecs.Descriptor

// Referrers makes it a provider for containerd's archiver, which lists them in the archive's index.
func (b besides) Referrers(_ context.Context, d ocispecs.Descriptor) (list []ocispecs.Descriptor, _ error) {
	for _, a := range b[d.Digest] {
		list = append(list, ocispecs.Descriptor{MediaType: a.MediaType, Digest: a.Digest, Size: a.Size, ArtifactType: a.ArtifactType})
	}
	return list, nil
}

// Loaded is one image that came from an archive; Name is in full, or empty if the archive has none for it.
type Loaded struct {
	Name string
	ID   digest.Digest
}

// ErrBadArchive is wrapped by errors that the archive is the cause of.
var ErrBadArchive = errors.New("not a complete image archive")

// Load reads an archive of `docker save` or an OCI layout in a tar, compressed or not, and stores its images under their
// names. On an error the store is as it was.
func (s *Store) Load(ctx context.Context, r io.Reader) (loaded []Loaded, err error) {
	plain, err := compression.DecompressStream(r)
	if err != nil {
		return nil, badArchive(err)
	}
	defer plain.Close()
	ctx, end, err := s.lease(ctx)
	if err != nil {
		return nil, err
	}
	defer end(&err)

	root, err := archive.ImportIndex(ctx, s.Content, plain)
	if err == nil {
		_, err = io.Copy(io.Discard, plain) // up to the compression's checksum, which comes after the tar's end
	}
	if err != nil {
		return nil, badArchive(err)
	}
	var index ocispecs.Index
	if err := readJSON(ctx, s.Content, root, &index); err != nil {
		return nil, badArchive(err)
	}
	var targets []ocispecs.Descriptor
	var beside []manifest
	for _, m := range index.Manifests {
		a, ok, err := s.archivedArtifact(ctx, m)
		if err != nil {
			return nil, badArchive(err)
		}
		if ok {
			beside = append(beside, a)
			continue
		}
		name, err := archivedName(m)
		if err != nil {
			return nil, badArchive(err)
		}
		if err := s.checkLoaded(ctx, m); err != nil {
			return nil, badArchive(fmt.Errorf("%s: %w", cmp.Or(name, m.Digest.String()), err))
		}
		targets = append(targets, ocispecs.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: m.Size})
		loaded = append(loaded, Loaded{Name: name, ID: m.Digest})
	}
	if len(targets) == 0 {
		return nil, badArchive(errors.New("it has no images"))
	}
	if err := api.Label(ctx, s.Content, targets...); err != nil {
		return nil, err
	}
	for _, a := range beside {
		if err := s.keep(ctx, a); err != nil {
			return nil, err
		}
	}
	for i, l := range loaded {
		if err := s.put(ctx, cmp.Or(l.Name, danglingName(l.ID)), targets[i]); err != nil {
			return nil, fmt.Errorf("name image: %w", err)
		}
	}
	return loaded, nil
}

func badArchive(err error) error {
	if errors.Is(err, context.Canceled) || errdefs.IsCanceled(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrBadArchive, err)
}

// archivedName returns the full name that an archive gives to an image. An OCI layout may give it a tag without a
// repository: that is no name.
func archivedName(d ocispecs.Descriptor) (string, error) {
	name := d.Annotations[images.AnnotationImageName]
	if name == "" {
		name = d.Annotations[ocispecs.AnnotationRefName]
		if !strings.ContainsAny(name, ":/") {
			return "", nil
		}
	}
	named, err := ParseName(name)
	if err != nil {
		return "", err
	}
	return named.String(), nil
}

// archivedArtifact tells an entry of an archive's index that is about another manifest (its subject) from an image.
func (s *Store) archivedArtifact(ctx context.Context, d ocispecs.Descriptor) (a manifest, ok bool, err error) {
	if !images.IsManifestType(d.MediaType) || d.Digest.Validate() != nil { // which is said of an image
		return manifest{}, false, nil
	}
	d = ocispecs.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
	if err := readJSON(ctx, s.Content, d, &a.body); errdefs.IsNotFound(err) {
		return manifest{}, false, nil // and so is this
	} else if err != nil {
		return manifest{}, false, err
	}
	if referrer.Type(a.body) == "" {
		return manifest{}, false, nil
	}
	a.desc, a.about = d, a.body.Subject.Digest
	return a, true, nil
}

// keep holds an artifact together with what it is about. What is about something that did not come is dropped.
func (s *Store) keep(ctx context.Context, a manifest) error {
	if _, err := s.Content.Info(ctx, a.about); errdefs.IsNotFound(err) {
		return nil
	} else if err != nil {
		return fmt.Errorf("look for %s: %w", a.about, err)
	}
	if err := api.Label(ctx, s.Content, a.desc); err != nil {
		return err
	}
	return referrer.Keep(ctx, s.Content, a.about, a.desc.Digest)
}

// checkLoaded makes sure that an image is complete for one platform at least.
func (s *Store) checkLoaded(ctx context.Context, target ocispecs.Descriptor) error {
	v, err := s.survey(ctx, target)
	if err != nil {
		return err
	}
	if len(v.images()) == 0 {
		return ErrIncomplete
	}
	return nil
}
