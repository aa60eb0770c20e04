package engine

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/push"
	"github.com/moby/buildkit/util/resolver"
	resolverconfig "github.com/moby/buildkit/util/resolver/config"
	"github.com/moby/buildkit/worker"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/outcome"
	"github.com/optbuild/optbuild/builder/referrer"
)

// BuildKit's exporter puts attestations into the index, as entries for the platform unknown/unknown; an image for one platform becomes an index for that. What it makes for them are
// artifacts with the image as their subject already. So an image is exported twice: with them, under no name, and without them. The artifacts of the first are put beside the second.

// attesting is a worker whose exporters of images do that, where an export asks for it.
type attesting struct {
	worker.Worker
	uploads *uploads // for what it knows of registries
}

func (w attesting) Exporter(name string, sm *session.Manager) (exporter.Exporter, error) {
	e, err := w.Worker.Exporter(name, sm)
	if err != nil {
		return e, err
	}
	e = recordedExporter{e}
	if name != client.ExporterImage {
		return e, nil
	}
	return attestingExporter{e, w.uploads}, nil
}

type attestingExporter struct {
	exporter.Exporter
	uploads *uploads
}

func (e attestingExporter) Resolve(ctx context.Context, id int, attrs map[string]string) (exporter.ExporterInstance, error) {
	beside, _ := strconv.ParseBool(attrs[outcome.AttrBeside])
	if _, ok := attrs[outcome.AttrBeside]; ok {
		attrs = maps.Clone(attrs)
		delete(attrs, outcome.AttrBeside) // BuildKit's exporter would take it for metadata of the image
	}
	i, err := e.Exporter.Resolve(ctx, id, attrs)
	if err != nil || !beside {
		return i, err
	}
	attrs = maps.Clone(attrs) // the name stays: it is in the attestations
	for _, k := range []exptypes.ImageExporterOptKey{exptypes.OptKeyPush, exptypes.OptKeyStore, exptypes.OptKeyUnpack} {
		attrs[string(k)] = "false"
	}
	with, err := e.Exporter.Resolve(ctx, id, attrs)
	if err != nil {
		return nil, err
	}
	insecure, _ := strconv.ParseBool(attrs[string(exptypes.OptKeyInsecure)])
	return attestingInstance{i, with, e.uploads, insecure}, nil
}

type attestingInstance struct {
	exporter.ExporterInstance
	with     exporter.ExporterInstance
	uploads  *uploads
	insecure bool
}

func (i attestingInstance) Export(ctx context.Context, src *exporter.Source, info exporter.ExportBuildInfo) (_ map[string]string, _ exporter.FinalizeFunc, desc exporter.DescriptorReference, err error) {
	if len(src.Attestations) == 0 {
		return i.ExporterInstance.Export(ctx, src, info)
	}
	_, _, attested, err := i.with.Export(ctx, src, info)
	if err != nil {
		return nil, nil, nil, err
	}
	defer func() {
		if desc == nil {
			err = errors.Join(err, attested.Release())
		}
	}()
	made, err := i.attestations(ctx, attested.Descriptor())
	if err != nil {
		return nil, nil, nil, err
	}
	plain := src.Clone()
	plain.Attestations = nil
	resp, push, image, err := i.ExporterInstance.Export(ctx, plain, info)
	if err != nil {
		return nil, nil, nil, err
	}
	if image == nil {
		return nil, nil, nil, errors.New("the exporter does not say what it made")
	}
	list, err := i.mark(ctx, image.Descriptor(), made)
	if err == nil {
		var b []byte
		if b, err = json.Marshal(list); err == nil {
			resp[outcome.AttestationsKey] = base64.StdEncoding.EncodeToString(b)
		}
	}
	if err != nil {
		return nil, nil, nil, errors.Join(err, image.Release())
	}
	desc = attestedReference{image, attested}
	if push == nil {
		return resp, nil, desc, nil
	}
	var names []string // one for each repository
	for name := range strings.SplitSeq(resp[exptypes.ExporterImageNameKey], ",") {
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return nil, nil, nil, errors.Join(err, desc.Release())
		}
		if name = named.Name(); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return resp, func(ctx context.Context) error {
		if err := push(ctx); err != nil {
			return err
		}
		for _, name := range names {
			for _, a := range list {
				if err := i.attach(ctx, info.SessionID, name, a); err != nil {
					return fmt.Errorf("the image is pushed, its attestations are not (--attest-in=index needs nothing but an index): %s: %w", name, err)
				}
			}
		}
		return nil
	}, desc, nil
}

// attestations are those in an index, by the manifests that they are about.
func (i attestingInstance) attestations(ctx context.Context, index ocispecs.Descriptor) (map[digest.Digest]ocispecs.Descriptor, error) {
	if !images.IsIndexType(index.MediaType) {
		return nil, nil // those that are there are not for images
	}
	var x ocispecs.Index
	b, err := content.ReadBlob(ctx, i.uploads.content, index)
	if err == nil {
		err = json.Unmarshal(b, &x)
	}
	if err != nil {
		return nil, fmt.Errorf("read the index with attestations: %w", err)
	}
	_, made := referrer.Split(x.Manifests)
	return made, nil
}

// mark notes in the content store what is beside the manifests of an image: it is kept while they are.
func (i attestingInstance) mark(ctx context.Context, image ocispecs.Descriptor, made map[digest.Digest]ocispecs.Descriptor) (list []outcome.Attestation, err error) {
	manifests := []ocispecs.Descriptor{image}
	if images.IsIndexType(image.MediaType) {
		var x ocispecs.Index
		b, err := content.ReadBlob(ctx, i.uploads.content, image)
		if err == nil {
			err = json.Unmarshal(b, &x)
		}
		if err != nil {
			return nil, fmt.Errorf("read the image's index: %w", err)
		}
		manifests = x.Manifests
	}
	for _, m := range manifests {
		a, ok := made[m.Digest]
		if !ok {
			continue
		}
		if err := referrer.Mark(ctx, i.uploads.content, m.Digest, a.Digest); err != nil {
			return nil, err
		}
		list = append(list, outcome.Attestation{Manifest: m.Digest, Digest: a.Digest, Size: a.Size})
	}
	if len(list) < len(made) { // an annotation for one platform, which an image without an index has no place for
		return nil, errors.New("the image is another one without the attestations in its index; --attest-in=index leaves them there")
	}
	return list, nil
}

// attach pushes an attestation into the repository of a name, and sees to it that it is found there.
func (i attestingInstance) attach(ctx context.Context, sessionID, name string, a outcome.Attestation) error {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return err
	}
	u, repository := i.uploads, named.Name()
	if err := push.Push(ctx, u.sessions, sessionID, u.content, u.content, a.Digest, repository, i.insecure, u.hosts, true, nil); err != nil {
		return err
	}
	hosts, scope := u.hosts, resolver.ScopeType{Push: true, Insecure: i.insecure}
	if i.insecure { // as BuildKit's push has it
		on := true
		hosts = resolver.NewRegistryConfig(map[string]resolverconfig.RegistryConfig{reference.Domain(named): {Insecure: &on, PlainHTTP: &on}})
	}
	r := resolver.DefaultPool.GetResolver(hosts, reference.TagNameOnly(named).String(), scope, u.sessions, session.NewGroup(sessionID))
	return referrer.Announce(ctx, docker.NewResolver(docker.ResolverOptions{Hosts: pushedTo(r.HostsFunc), Tracker: docker.NewInMemoryTracker()}), repository, a.Manifest,
		ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageManifest, Digest: a.Digest, Size: a.Size, ArtifactType: referrer.AttestationType})
}

// attestedReference holds an image and what is beside it until it has been pushed.
type attestedReference struct {
	exporter.DescriptorReference
	attested exporter.DescriptorReference
}

func (r attestedReference) Release() error {
	return errors.Join(r.DescriptorReference.Release(), r.attested.Release())
}
