package manifests

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/containerd/v2/pkg/snapshotters"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/cache/remotecache"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/contentutil"
	"github.com/moby/buildkit/util/estargz"
	"github.com/moby/buildkit/util/resolver"
	resolverconfig "github.com/moby/buildkit/util/resolver/config"
	"github.com/moby/buildkit/util/resolver/limited"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/engine/chains"
)

// Registry returns what makes importers of type registry, with BuildKit's attributes: ref, and registry.insecure. Layers that the store has already are marked as those of ref. A cache that
// check refuses is not used.
func Registry(sessions *session.Manager, store content.Manager, hosts docker.RegistryHosts, check chains.Check) remotecache.ResolveCacheImporterFunc {
	return func(ctx context.Context, g session.Group, attrs map[string]string) (remotecache.Importer, ocispecs.Descriptor, error) {
		fail := func(err error) (remotecache.Importer, ocispecs.Descriptor, error) {
			return nil, ocispecs.Descriptor{}, err
		}
		if attrs["ref"] == "" {
			return fail(errors.New("missing ref"))
		}
		named, err := reference.ParseNormalizedNamed(attrs["ref"])
		if err != nil {
			return fail(fmt.Errorf("ref=%s: %w", attrs["ref"], err))
		}
		named = reference.TagNameOnly(named)
		hosts, scope := hosts, resolver.ScopeType{}
		if v, ok := attrs["registry.insecure"]; ok {
			if scope.Insecure, err = strconv.ParseBool(v); err != nil {
				return fail(fmt.Errorf("registry.insecure=%s: %w", v, err))
			}
		}
		if yes := true; scope.Insecure {
			hosts = resolver.NewRegistryConfig(map[string]resolverconfig.RegistryConfig{reference.Domain(named): {Insecure: &yes, PlainHTTP: &yes}})
		}
		p := registryProvider{resolver: resolver.DefaultPool.GetResolver(hosts, named.String(), scope, sessions, g), ref: named.String(), store: store}
		var desc ocispecs.Descriptor
		if p.found, desc, err = p.resolver.Resolve(ctx, p.ref); err != nil {
			return fail(err)
		}
		return importer{check, func(r *reading) content.Provider {
			p := p
			p.reading = r
			return p
		}}, desc, nil
	}
}

// registryProvider reads a repository. BuildKit looks for its abilities (remotecache.DistributionSourceLabelSetter, contentutil.ProviderForSession, worker/base).
type registryProvider struct {
	resolver *resolver.Resolver
	ref      string
	found    string // what the resolver calls ref
	store    content.Manager
	reading  *reading
}

var _ remotecache.DistributionSourceLabelSetter = registryProvider{}

func (p registryProvider) ReaderAt(ctx context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	return p.reading.open(ctx, d, p.fetch)
}

func (p registryProvider) fetch(ctx context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	f, err := p.resolver.Fetcher(ctx, p.found)
	if err != nil {
		return nil, err
	}
	return contentutil.FromFetcher(limited.Default.WrapFetcher(f, p.ref)).ReaderAt(ctx, d)
}

// ProviderForSession has the credentials of those who need a layer, which need not be those of who has imported the cache.
func (p registryProvider) ProviderForSession(g session.Group) content.Provider {
	p.resolver = p.resolver.WithSession(g)
	return p
}

func (p registryProvider) SetDistributionSourceLabel(ctx context.Context, d digest.Digest) error {
	label, err := docker.AppendDistributionSourceLabel(p.store, p.ref)
	if err == nil {
		_, err = label(ctx, ocispecs.Descriptor{Digest: d})
	}
	return err
}

func (p registryProvider) SetDistributionSourceAnnotation(d ocispecs.Descriptor) ocispecs.Descriptor {
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	}
	d.Annotations[labels.LabelDistributionSource+".ref"] = p.ref
	return d
}

// SnapshotLabels tell snapshotters that fetch layers themselves where a layer is.
func (p registryProvider) SnapshotLabels(list []ocispecs.Descriptor, i int) map[string]string {
	if i >= len(list) {
		return nil
	}
	all := estargz.SnapshotLabels(p.ref, list, i)
	if all == nil {
		all = map[string]string{}
	}
	for k, v := range snapshots.FilterInheritedLabels(list[i].Annotations) {
		if _, ok := all[k]; !ok {
			all[k] = v
		}
	}
	all[snapshotters.TargetRefLabel] = p.ref
	return all
}
