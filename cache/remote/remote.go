// Package remote keeps what builds share in one repository of a registry.
//
//	Store ──Load──> Index of entries ──Find──> Entry ──Fetch──> its content
//	  ^                                          └─ Holds: layers, read through Provider when they are needed
//	  ├──Push, PushBytes: blobs
//	  └──Add: entries, beside other writers, none of which loses any
//
// What comes in and goes out are entries ([Entry]): a kind, a key, a blob, and the blobs that must live as long as it does. What a kind means is for callers
// to know; the package knows nothing of steps, traces or BuildKit's solver. Each *scope* (a branch, say) has one *index*, which has a tag of its own. A
// [Store] writes one scope and reads several.
//
// Nothing that is read is trusted: sizes are bounded before a byte is kept, digests are checked, and an index that is damaged, hostile, of a version that
// this program does not know or not signed by a trusted key is empty, with a message. Trouble with the network is an error, for the caller to decide about.
// Retries of single requests, credentials, mirrors and TLS are in the hosts that [Open] is given.
//
// FORMAT.md has the bytes; README.md has the argument why concurrent writers lose nothing, and what it rests on.
package remote

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
)

// Options say what of a repository is read and written, and how. The zero value reads nothing and writes nothing.
type Options struct {
	Write  string   // the scope that is written, and read first: "branch-main", say. Empty: nothing is written
	Read   []string // scopes that are read after it, in this order
	Bounds Bounds   // of the scope that is written

	// SigningKey signs what is written; its public half is trusted. Nil: what is written is not signed.
	SigningKey ed25519.PrivateKey
	// TrustedKeys are the keys one of which must have signed an index that is used. Without them and without a SigningKey every index is used.
	TrustedKeys []ed25519.PublicKey

	// Warn is told what users should know, each message at most once for a Store. It may be called concurrently; nil: nobody is told.
	Warn func(string)

	// Timing is for tests: all writers of a repository must have the same.
	Timing Timing
}

// Timing is what the agreement between writers rests on; zero values are the defaults. README.md says why they are what they are.
type Timing struct {
	// Window is how long a writer may take from looking at a tag for the last time until its registry has accepted the new index. After that it gives up.
	Window time.Duration
	// Grace is how long a request can still take effect after its sender gave it up.
	Grace time.Duration
	// Patience is how long a change is tried in all.
	Patience time.Duration
	// Read is how long reading one index may take.
	Read time.Duration
}

func (t Timing) orDefault() Timing {
	for _, v := range []struct {
		field   *time.Duration
		instead time.Duration
	}{{&t.Window, 2 * time.Second}, {&t.Grace, 2 * time.Second}, {&t.Patience, 2 * time.Minute}, {&t.Read, 30 * time.Second}} {
		if *v.field <= 0 {
			*v.field = v.instead
		}
	}
	return t
}

// Store is a repository that keeps entries. Its methods may be called concurrently.
type Store struct {
	hosts  docker.RegistryHosts
	repo   reference.Named
	o      Options
	timing Timing

	writing chan struct{} // holds one while an index is changed: within a program writers need not race
	// unsettled are tags that may have been written by a change that gave up before that was certain to last. Whoever is in writing may use it.
	unsettled map[string]bool

	mu sync.Mutex
	// known is what was read last of each tag, so that what has not changed is not read again.
	known       map[string]*state
	present     map[string]time.Time // since when tags are known to be there
	warned      map[string]bool
	conditional support
	keeps       bool // the registry does not let manifests be deleted: it is not asked again
}

// Open returns the store in a repository; a tag or digest in its name does not matter. Nothing is asked of the registry yet.
func Open(hosts docker.RegistryHosts, repo reference.Named, o Options) *Store {
	return &Store{
		hosts: hosts, repo: reference.TrimNamed(repo), o: o, timing: o.Timing.orDefault(),
		known: map[string]*state{}, present: map[string]time.Time{}, warned: map[string]bool{},
		unsettled: map[string]bool{}, writing: make(chan struct{}, 1),
	}
}

// ErrReadOnly says that a store has no scope to write.
var ErrReadOnly = errors.New("the shared cache is only read")

// Load reads the indexes of all scopes, at the same time. A scope that is not there is empty. When the registry can't be asked, the error says so, and the
// index has what could be read. An index that is damaged or not to be trusted is empty, and Warn is told why.
func (s *Store) Load(ctx context.Context) (*Index, error) {
	scopes := s.scopes()
	states, errs := make([]*state, len(scopes)), make([]error, len(scopes))
	var wg sync.WaitGroup
	for i, scope := range scopes {
		wg.Go(func() {
			states[i], errs[i] = s.read(ctx, scope)
		})
	}
	wg.Wait()
	var x Index
	for i, st := range states {
		if st != nil {
			x.add(scopes[i], s.fresh(st.entries))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return &x, fmt.Errorf("read cache %s: %w", s.name(), err)
	}
	return &x, nil
}

// fresh are the entries that a reader who trusts signatures takes: whoever may write to the repository can put an old index with its signature back, and so what is in it counts no longer than
// it would have been kept.
func (s *Store) fresh(entries []identified) []identified {
	most := s.o.Bounds.orDefault().MaxAge
	if len(s.o.trusted()) == 0 || most < 0 {
		return entries
	}
	oldest := time.Now().Add(-most)
	return slices.DeleteFunc(slices.Clone(entries), func(e identified) bool { return e.Created.Before(oldest) })
}

// scopes are those that are read, each once.
func (s *Store) scopes() []string {
	var out []string
	seen := map[string]bool{"": true}
	for _, scope := range append([]string{s.o.Write}, s.o.Read...) {
		if !seen[scope] {
			seen[scope] = true
			out = append(out, scope)
		}
	}
	return out
}

func (s *Store) name() string { return reference.FamiliarString(s.repo) }

// warn tells something about a scope, once.
func (s *Store) warn(scope, format string, args ...any) {
	text := fmt.Sprintf("cache %s, scope %s: ", s.name(), scope) + fmt.Sprintf(format, args...)
	s.mu.Lock()
	told := s.warned[text]
	s.warned[text] = true
	s.mu.Unlock()
	if !told && s.o.Warn != nil {
		s.o.Warn(text)
	}
}
