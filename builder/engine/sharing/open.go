package sharing

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/util/progress"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/builder/engine/mounts"
	"github.com/optbuild/optbuild/builder/scope"
	"github.com/optbuild/optbuild/cache/remote"
)

// store is a cache that was opened for one build.
type store struct {
	*remote.Store
	named   reference.Named
	options scope.Options

	mu   sync.Mutex
	says []string // what users have not been told yet
}

// open opens the cache that options describe. A key that can't be read is an error: without it what is read would not be checked.
func open(hosts docker.RegistryHosts, named reference.Named, o scope.Options) (*store, error) {
	s := &store{named: named, options: o}
	r := remote.Options{Write: o.Write, Read: o.Read, Bounds: bounds(o), Warn: s.warn}
	var err error
	if o.TrustFile != "" {
		if r.TrustedKeys, err = remote.ReadTrustedKeys(o.TrustFile); err != nil {
			return nil, err
		}
	}
	if o.SignFile != "" && o.Write != "" {
		if r.SigningKey, err = remote.ReadSigningKey(o.SignFile); err != nil {
			return nil, err
		}
	}
	s.Store = remote.Open(hosts, named, r)
	return s, nil
}

// ref is the name under which layers of the cache are known to have been pulled.
func (s *store) ref() string { return reference.TagNameOnly(s.named).String() }

// bounds are those of the scope that is written. An index is read whole by each build, so it is kept below some 64 KB; of what replaces an older one of its kind two are kept: a branch may have
// been built from an older state.
func bounds(o scope.Options) remote.Bounds {
	return remote.Bounds{
		MaxAge: o.MaxAge, MaxBytes: o.MaxBytes, MaxEntries: 500,
		PerKey: map[string]int{mounts.Kind: 2, kindTimes: 2, kindTree: 1, kindLayers: 1, kindTrace: 8, kindTwin: 1},
	}
}

func (s *store) warn(message string) {
	message = strings.Join(strings.Fields(message), " ") // registries' own messages come in lines
	logrus.Warn("shared cache: " + message)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.says, message) {
		s.says = append(s.says, message)
	}
}

// tell shows what is to be told in the progress of a call.
func (s *store) tell(ctx context.Context) {
	s.mu.Lock()
	says := s.says
	s.says = nil
	s.mu.Unlock()
	for _, message := range says {
		_ = progress.OneOff(ctx, "shared cache "+reference.FamiliarString(s.named)+": "+message)(nil)
	}
}
