// Package store is the local image store as a command sees it: names in containerd's image store, blobs in its content
// store, both held by the engine and reached over [api.Stores].
//
//	a build ──(BuildKit's image exporter)──> names + blobs <──> Pull, Push    a registry
//	                                              ^──────────> Save, Load    an archive
//	                                              └──────────> List, Tag, Remove, Inspect
//
// Terms. A *name* is a reference in full ("docker.io/library/app:latest"); people see and type the familiar form ("app").
// A name's *target* is the descriptor of an index or a manifest; its digest is the image's *id*. An image is *complete*
// for a platform when the manifest, the configuration and every layer of it are in the content store.
//
// What is stored stays as it came, bit for bit: Pull, Load, Save and Push never rewrite a manifest. Of an index with many
// platforms, the content of some may be missing. A blob lives as long as a name reaches it through the
// "containerd.io/gc.ref" labels, or a lease does (while something is being transferred), or a build's cache uses it.
//
// The package knows nothing of terminals, flags or credentials: registries come in as a [docker.RegistryHosts], progress
// goes out as BuildKit's SolveStatus.
package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/leaseutil"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/store/api"
)

// Options say how a store reaches registries and reports what it does.
type Options struct {
	// Hosts resolves registries, their credentials included. Nil means plain https, and http for loopback, anonymously.
	Hosts docker.RegistryHosts
	// Status receives the progress of transfers; calls are serialised. May be nil.
	Status func(*client.SolveStatus)
}

// Store is a local image store. Its methods may be called concurrently.
type Store struct {
	api.Stores
	hosts  docker.RegistryHosts
	status func(*client.SolveStatus)
}

// New returns the store over s.
func New(s api.Stores, o Options) *Store {
	if o.Hosts == nil {
		o.Hosts = docker.ConfigureDefaultRegistries(docker.WithPlainHTTP(docker.MatchLocalhost))
	}
	if o.Status == nil {
		o.Status = func(*client.SolveStatus) {}
	}
	return &Store{Stores: s, hosts: o.Hosts, status: o.Status}
}

// ErrNoImage is wrapped by errors about an image that is not in the store.
var ErrNoImage = errors.New("no such image")

// maxManifestBytes bounds an index or a manifest, which are read into memory. Registries refuse more than 4 MB
// (documented by distribution).
const maxManifestBytes = 8 << 20

// leaseTime outlasts any transfer. A lease that its command could not delete, because it was killed, ends when the next
// engine starts: it is marked as temporary, and BuildKit's worker drops those.
const leaseTime = 24 * time.Hour

// lease returns a context under which everything that is written, and what is named in held, is safe from collection. End
// it with the error of what was done under it: on failure everything that nothing else holds is removed at once.
func (s *Store) lease(ctx context.Context, held ...ocispecs.Descriptor) (context.Context, func(*error), error) {
	l, err := s.Leases.Create(ctx, leases.WithRandomID(), leases.WithExpiration(leaseTime), leaseutil.MakeTemporary)
	if err != nil {
		return nil, nil, fmt.Errorf("create lease: %w", err)
	}
	end := func(failed *error) {
		var opts []leases.DeleteOpt
		if len(held) == 0 { // something was written
			opts = append(opts, leases.SynchronousDelete)
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if err := s.Leases.Delete(ctx, l, opts...); err != nil && *failed == nil {
			*failed = fmt.Errorf("delete lease: %w", err)
		}
	}
	for _, d := range held {
		if err := s.Leases.AddResource(ctx, l, leases.Resource{ID: d.Digest.String(), Type: "content"}); err != nil {
			err = fmt.Errorf("hold %s: %w", d.Digest, err)
			end(&err)
			return nil, nil, err
		}
	}
	return leases.WithLease(ctx, l.ID), end, nil
}

// put gives an image a name, which may be in use for another image.
func (s *Store) put(ctx context.Context, name string, target ocispecs.Descriptor) error {
	image := images.Image{Name: name, Target: target}
	for {
		_, err := s.Images.Update(ctx, image, "target", "labels")
		if !errdefs.IsNotFound(err) {
			return err
		}
		if _, err = s.Images.Create(ctx, image); !errdefs.IsAlreadyExists(err) {
			return err
		}
	}
}

func (s *Store) resolver() remotes.Resolver {
	return docker.NewResolver(docker.ResolverOptions{Hosts: s.hosts, Tracker: docker.NewInMemoryTracker()})
}
