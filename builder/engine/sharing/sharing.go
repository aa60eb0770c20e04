// Package sharing is the engine's side of a cache that machines share at a registry (package cache/remote): what goes into it, and what is made of what it says.
//
//	build ──> BuildKit's cache chains ──> solver entry (records, layers)      ┐
//	     └──> steps that were watched ──> trace entries (observations, layer) ├ remote.Store ──> registry
//	     └──> files that were copied  ──> times entries                       ┘
//
// To BuildKit it is an importer and an exporter of the type "optbuild", beside registry, local and the others. Unlike those it adds to what is there: each build is an entry of its own, and
// a reader sees all of them as one cache.
//
// Nothing that is read here is trusted: a damaged or hostile entry is a miss. Nothing here fails a build: what can't be read or written is told once.
package sharing

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/cache/remotecache"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/resolver"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/engine/mounts"
	"github.com/optbuild/optbuild/builder/scope"
)

// Caches are the shared caches that builds of this engine use. Its methods may be called concurrently.
type Caches struct {
	sessions *session.Manager
	hosts    docker.RegistryHosts
	manager  cache.Manager
	content  content.Store

	// Keeper knows the cache mounts of this machine. Nil: they stay where they are.
	Keeper *mounts.Keeper

	later   sync.WaitGroup // what goes on after its build has ended
	pending atomic.Int32   // how much of it

	mu     sync.Mutex
	builds map[string]*build // by session
	order  []string          // of the sessions, the oldest first
	names  map[string]string // of chains of layers, by what they are when they were fetched
}

// maxBuilds is how many builds are remembered. One of which more begin while it goes on writes less than it could.
const maxBuilds = 256

// New returns what has no caches yet. Records are those of the manager, their blobs in the store.
func New(sessions *session.Manager, hosts docker.RegistryHosts, manager cache.Manager, blobs content.Store) *Caches {
	return &Caches{sessions: sessions, hosts: hosts, manager: manager, content: blobs, builds: map[string]*build{}, names: map[string]string{}}
}

// open returns the cache that attributes name, with the credentials of a session.
func (c *Caches) open(attrs map[string]string, g session.Group) (*store, error) {
	o, err := scope.ParseOptions(attrs)
	if err != nil {
		return nil, err
	}
	named, err := reference.ParseNormalizedNamed(o.Ref)
	if err != nil {
		return nil, fmt.Errorf("shared cache %q: %w", o.Ref, err)
	}
	named = reference.TrimNamed(named)
	r := resolver.DefaultPool.GetResolver(c.hosts, named.String(), resolver.ScopeType{Push: o.Write != ""}, c.sessions, g)
	return open(r.HostsFunc, named, o)
}

// Importer is what BuildKit calls for a cache to read from.
func (c *Caches) Importer() remotecache.ResolveCacheImporterFunc {
	return func(_ context.Context, g session.Group, attrs map[string]string) (remotecache.Importer, ocispecs.Descriptor, error) {
		store, err := c.open(attrs, g)
		if err != nil {
			return nil, ocispecs.Descriptor{}, err
		}
		builds := c.of(session.AllSessionIDs(g), true)
		c.travel(builds, store)
		return &importer{store: store, builds: builds, manager: c.manager}, ocispecs.Descriptor{}, nil
	}
}

// Exporter is what BuildKit calls for a cache to write to.
func (c *Caches) Exporter() remotecache.ResolveCacheExporterFunc {
	return func(_ context.Context, g session.Group, attrs map[string]string) (remotecache.Exporter, error) {
		store, err := c.open(attrs, g)
		if err != nil {
			return nil, err
		}
		builds := c.of(session.AllSessionIDs(g), true)
		for _, b := range builds {
			b.mu.Lock()
			b.writes = true
			b.mu.Unlock()
		}
		c.travel(builds, store)
		return newExporter(c, store, builds, g), nil
	}
}

// Later returns a function that waits for what goes on at registries; nil if nothing does.
func (c *Caches) Later() func() {
	if c.pending.Load() == 0 {
		return nil
	}
	return c.later.Wait
}

// of returns the builds of sessions.
func (c *Caches) of(sessions []string, create bool) (list []*build) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range sessions {
		b := c.builds[s]
		if b == nil && create {
			b = &build{}
			c.builds[s] = b
			if c.order = append(c.order, s); len(c.order) > maxBuilds {
				delete(c.builds, c.order[0])
				c.order = c.order[1:]
			}
		}
		if b != nil {
			list = append(list, b)
		}
	}
	return list
}
