package engine

import (
	"context"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/labels"
	ctdreference "github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/cache"
	cacheconfig "github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/util/progress"
	"github.com/moby/buildkit/util/resolver"
	"github.com/moby/buildkit/worker"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/builder/compress"
	records "github.com/optbuild/optbuild/builder/record"
)

// BuildKit's push asks for each blob of an image whether the registry has it, and sends it if not. Three things are added:
//
//   - what was sent while the build ran (uploads) is waited for, so that nothing is sent twice;
//   - a registry that has the manifest under its name already is asked for nothing else: it took it only with all that it names;
//   - layers that were pulled from another repository of the registry are taken from there. BuildKit does so only for those that it has left there.

// pushing is a worker whose exporters of images do that.
type pushing struct {
	worker.Worker
	uploads *uploads
}

func (w pushing) Exporter(name string, sm *session.Manager) (exporter.Exporter, error) {
	e, err := w.Worker.Exporter(name, sm)
	if err != nil {
		return nil, err
	}
	switch name {
	case client.ExporterImage, client.ExporterOCI, client.ExporterDocker:
		return pushingExporter{e, w.uploads}, nil
	}
	return e, nil
}

type pushingExporter struct {
	exporter.Exporter
	uploads *uploads
}

func (e pushingExporter) Resolve(ctx context.Context, id int, attrs map[string]string) (exporter.ExporterInstance, error) {
	i, err := e.Exporter.Resolve(ctx, id, attrs)
	if err != nil {
		return nil, err
	}
	plain := attrs["registry.insecure"] == "" && attrs["push-by-digest"] == ""
	return pushingInstance{i, e.uploads, plain}, nil
}

type pushingInstance struct {
	exporter.ExporterInstance
	uploads *uploads
	plain   bool // the image is pushed under its names, to hosts as they are configured
}

func (i pushingInstance) Export(ctx context.Context, src *exporter.Source, info exporter.ExportBuildInfo) (map[string]string, exporter.FinalizeFunc, exporter.DescriptorReference, error) {
	src = src.Clone()
	layers := &layerSet{content: i.uploads.content}
	if src.Ref != nil {
		src.Ref = sourced{src.Ref, layers}
	}
	src.Refs = maps.Clone(src.Refs)
	for k, ref := range src.Refs {
		if ref != nil {
			src.Refs[k] = sourced{ref, layers}
		}
	}
	resp, finalize, desc, err := i.ExporterInstance.Export(ctx, src, info)
	if err != nil || finalize == nil || desc == nil {
		return resp, finalize, desc, err
	}
	names, manifest := strings.Split(resp["image.name"], ","), desc.Descriptor()
	return resp, func(ctx context.Context) error {
		i.uploads.settle(ctx, info.SessionID)
		// The manifests that an index names may have been deleted since: they are asked for.
		if i.plain && images.IsManifestType(manifest.MediaType) {
			done := progress.OneOff(ctx, "asking for "+manifest.Digest.String())
			there := !slices.ContainsFunc(names, func(name string) bool { return !i.uploads.there(ctx, info.SessionID, name, manifest.Digest) })
			_ = done(nil)
			if there {
				return nil
			}
		}
		if err := finalize(ctx); err != nil {
			return err
		}
		for _, name := range names {
			i.uploads.noteZstd(ctx, name, layers.all())
		}
		return nil
	}, desc, nil
}

// noteZstd notes where layers are now that were pushed. BuildKit does so for those of other formats.
func (u *uploads) noteZstd(ctx context.Context, name string, layers []ocispecs.Descriptor) {
	note, err := docker.AppendDistributionSourceLabel(u.content, name)
	if err != nil {
		return // what is not noted is sent again to the next repository
	}
	for _, d := range layers {
		if d.MediaType != ocispecs.MediaTypeImageLayerZstd {
			continue
		}
		if _, err := note(ctx, d); err != nil && !errdefs.IsNotFound(err) { // it may be at a registry only
			logrus.WithError(err).Warnf("note where %s is", d.Digest)
		}
	}
}

// there is true if a registry has a manifest under a name.
func (u *uploads) there(ctx context.Context, sessionID, name string, manifest digest.Digest) bool {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return false
	}
	ref := reference.TagNameOnly(named).String()
	spec, err := ctdreference.Parse(ref)
	if err != nil {
		return false
	}
	// The token for it is good for the push, too.
	if ctx, err = docker.ContextWithRepositoryScope(ctx, spec, true); err != nil {
		return false
	}
	r := resolver.DefaultPool.GetResolver(u.hosts, ref, resolver.ScopeType{Push: true}, u.sessions, session.NewGroup(sessionID))
	_, d, err := docker.NewResolver(docker.ResolverOptions{Hosts: pushedTo(r.HostsFunc)}).Resolve(ctx, ref)
	return err == nil && d.Digest == manifest
}

// pushedTo leaves out mirrors, which may have what a name meant yesterday.
func pushedTo(hosts docker.RegistryHosts) docker.RegistryHosts {
	return func(name string) ([]docker.RegistryHost, error) {
		list, err := hosts(name)
		return slices.DeleteFunc(slices.Clone(list), func(h docker.RegistryHost) bool { return !h.Capabilities.Has(docker.HostCapabilityPush) }), err
	}
}

// layered is what has layers.
type layered interface{ LayerChain() cache.RefList }

// sourced is a result whose layers say from which repositories they were pulled, have all annotations of their format, and are noted when an exporter asks for them.
type sourced struct {
	cache.ImmutableRef
	asked *layerSet
}

// layerSet is the layers of all platforms.
type layerSet struct {
	content content.Store

	mu     sync.Mutex
	layers map[digest.Digest]ocispecs.Descriptor
}

func (s *layerSet) add(list []ocispecs.Descriptor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.layers == nil {
		s.layers = map[digest.Digest]ocispecs.Descriptor{}
	}
	for _, d := range list {
		s.layers[d.Digest] = d
	}
}

func (s *layerSet) all() []ocispecs.Descriptor {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.layers))
}

func (r sourced) GetRemotes(ctx context.Context, create bool, cfg cacheconfig.RefConfig, all bool, s session.Group) ([]*solver.Remote, error) {
	list, err := r.ImmutableRef.GetRemotes(ctx, create, cfg, all, s)
	if err != nil {
		return nil, err
	}
	for i, remote := range list {
		layers := withSources(r.ImmutableRef, remote.Descriptors)
		for k, d := range layers {
			if layers[k], err = compress.Annotate(ctx, r.asked.content, d); err != nil {
				return nil, err
			}
		}
		list[i] = &solver.Remote{Descriptors: layers, Provider: remote.Provider}
		r.asked.add(layers)
	}
	return list, nil
}

// withSources returns the layers of a result with annotations as containerd's pusher reads them, and BuildKit's writer of images leaves out: for each host the repositories.
func withSources(ref layered, layers []ocispecs.Descriptor) []ocispecs.Descriptor {
	chain := ref.LayerChain()
	defer chain.Release(context.Background())
	pulled := map[string][]string{} // images by blob
	for _, r := range chain {
		var names []string
		if v := r.Get(records.ImageRefs); v != nil && v.Unmarshal(&names) == nil {
			blob := r.GetString(records.Blob)
			pulled[blob] = append(pulled[blob], names...)
		}
	}
	layers = slices.Clone(layers)
	for i, d := range layers {
		for _, name := range pulled[d.Digest.String()] {
			if spec, err := ctdreference.Parse(name); err == nil {
				if at, err := url.Parse("//" + spec.Locator); err == nil { // as containerd's pusher has it, without the port
					layers[i] = annotated(layers[i], labels.LabelDistributionSource+"."+at.Hostname(), strings.TrimPrefix(at.Path, "/"))
				}
			}
		}
	}
	return layers
}

// annotated adds to a list of repositories.
func annotated(d ocispecs.Descriptor, host, repositories string) ocispecs.Descriptor {
	list := strings.Split(d.Annotations[host], ",")
	for r := range strings.SplitSeq(repositories, ",") {
		if !slices.Contains(list, r) {
			list = append(list, r)
		}
	}
	list = slices.DeleteFunc(list, func(r string) bool { return r == "" })
	d.Annotations = maps.Clone(d.Annotations)
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	}
	d.Annotations[host] = strings.Join(list, ",")
	return d
}
