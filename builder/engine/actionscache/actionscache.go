// Package actionscache reads and writes a build's cache in the cache service of GitHub Actions (type=gha).
//
// The service keeps entries, each a key with a blob. Layers are entries that are named by their digests; an index, which is BuildKit's cache chains
// as JSON with what must be known of each layer, is an entry for each scope and branch. Keys and contents are those of BuildKit's own gha cache, which may read what
// is written here and the other way round (TestBackends builds with both):
//
//	buildkit-blob-1-sha256:0123...        a layer
//	index-SCOPE-1-89abcdef#7              the seventh index of a scope, and of the branch whose name has a SHA-256 that begins with 89abcdef
//
// An entry can't be replaced. An index gets the next number, and who asks for what begins with "index-SCOPE-1-89abcdef#" gets the newest. Which branches may be read, and which one
// written, the job's token says: its own, and the default branch's to read.
//
// Why not BuildKit's own package? It can demand signatures of indexes, and so compiles in a client of sigstore, whose packages took a fifth of the processor time that every start of
// optbuild took. Signatures are refused here (builder/daemon says so); the client of the service is the same, tonistiigi/go-actions-cache.
//
// Where it is weak: as with BuildKit, of two builds that write to one scope and branch at once the second one's index is what is left, and the service evicts entries one by one. A layer
// that an index promises may be gone; the build is made again without the cache then. The service's REST API, which lists all layers in one request (attributes
// repository and ghtoken), has a fixed address and is not tried by tests.
package actionscache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/util/tracing"
	"github.com/opencontainers/go-digest"
	actions "github.com/tonistiigi/go-actions-cache"
)

// format is the version of keys and index; BuildKit has never had another one.
const format = "1"

// defaultTimeout is how long indexes may take to be read and entries to be looked up, also where requests are refused because there are too many of them.
const defaultTimeout = 10 * time.Minute

// stall is how long a reader of a layer waits for what it has asked for, a megabyte at most. The client would wait for ever.
const stall = 2 * time.Minute

const blobPrefix = "buildkit-blob-" + format + "-"

func blobKey(d digest.Digest) string { return blobPrefix + d.String() }

// service is the cache as one token shows it.
type service struct {
	cache   *actions.Cache
	scope   string // the user's name for an index
	timeout time.Duration
	stall   time.Duration
	// list, if set, lists the keys that begin with a prefix in one request.
	list func(ctx context.Context, prefix string) (map[string]struct{}, error)
}

// open reads the attributes of a cache: url or url_v2 and token, and maybe version, scope, timeout, repository and ghtoken.
func open(attrs map[string]string) (*service, error) {
	if attrs["token"] == "" {
		return nil, errors.New("token=… is missing: a job's is in ACTIONS_RUNTIME_TOKEN")
	}
	url, v2, err := address(attrs)
	if err != nil {
		return nil, err
	}
	o := actions.Opt{Client: tracing.DefaultClient, Timeout: defaultTimeout, UserAgent: "optbuild"}
	if v := attrs["timeout"]; v != "" {
		if o.Timeout, err = time.ParseDuration(v); err != nil {
			return nil, fmt.Errorf("timeout=%s is no duration such as 10m", v)
		}
	}
	cache, err := actions.New(attrs["token"], url, v2, o)
	if err != nil {
		return nil, fmt.Errorf("read the token: %w", err)
	}
	s := &service{cache: cache, scope: "buildkit", timeout: o.Timeout, stall: stall}
	if v, ok := attrs["scope"]; ok {
		s.scope = v
	}
	if repository, token := attrs["repository"], attrs["ghtoken"]; repository != "" && token != "" {
		s.list = func(ctx context.Context, prefix string) (map[string]struct{}, error) {
			api, err := actions.NewRestAPI(repository, token, o)
			if err != nil {
				return nil, err
			}
			return cache.AllKeys(ctx, api, prefix)
		}
	}
	return s, nil
}

// address is the service's, and whether it speaks the second version of the protocol. Jobs are told an address for each, which old runners and GitHub Enterprise know one of.
func address(attrs map[string]string) (url string, v2 bool, err error) {
	version := 0
	if v, ok := attrs["version"]; ok {
		if version, err = strconv.Atoi(v); err != nil || version < 1 || version > 2 {
			return "", false, fmt.Errorf("version=%s is not 1 or 2", v)
		}
	}
	if v := attrs["url_v2"]; v != "" && version != 1 {
		return v, true, nil
	}
	url = attrs["url"]
	if url == "" {
		return "", false, errors.New("url=… or url_v2=… is missing: a job's are in ACTIONS_CACHE_URL and ACTIONS_RESULTS_URL")
	}
	return url, version == 2 || version == 0 && strings.Contains(url, "results-receiver.actions.githubusercontent.com"), nil
}

// indexKey is what the keys of a branch's indexes begin with; a number follows.
func (s *service) indexKey(branch string) string {
	sum := sha256.Sum256([]byte(branch))
	return "index-" + s.scope + "-" + format + "-" + hex.EncodeToString(sum[:])[:8] + "#"
}

// writable is the branch that may be written to.
func (s *service) writable() (string, error) {
	branch, found := "", false
	for _, b := range s.cache.Scopes() {
		if b.Permission&actions.PermissionWrite != 0 {
			branch, found = b.Scope, true
		}
	}
	if !found {
		return "", errors.New("this job's token may only read the cache")
	}
	return branch, nil
}

// entry is the one with exactly this key; nil if there is none. The service also answers with keys that only begin with it.
func (s *service) entry(ctx context.Context, key string) (*actions.Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	e, err := s.cache.Load(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", key, err)
	}
	if e == nil || e.Key != key {
		return nil, nil
	}
	return e, nil
}

// newest is the last index below a key, with its number; nil and 0 if there is none.
func (s *service) newest(ctx context.Context, key string) (*actions.Entry, int, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	e, err := s.cache.Load(ctx, key)
	if err != nil {
		return nil, 0, fmt.Errorf("look up %s: %w", key, err)
	}
	if e == nil {
		return nil, 0, nil
	}
	n, err := strconv.Atoi(strings.TrimPrefix(e.Key, key))
	if err != nil {
		return nil, 0, fmt.Errorf("the service answered %s with %s, which has no number", key, e.Key)
	}
	return e, n, nil
}
