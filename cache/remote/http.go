package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/cache/origin"
)

// The requests about tags and manifests are not made by containerd's resolver (package origin says why), which also returns from pushing a manifest when it pleases. Blobs go through it (blobs.go).

// origin is the host that a repository belongs to. Its tags are asked there: a mirror's may be old.
func (s *Store) origin() (docker.RegistryHost, error) {
	hosts, err := s.hosts(reference.Domain(s.repo))
	if err != nil {
		return docker.RegistryHost{}, err
	}
	for _, capability := range []docker.HostCapabilities{docker.HostCapabilityPush, docker.HostCapabilityPull | docker.HostCapabilityResolve} {
		for _, h := range hosts {
			if h.Capabilities.Has(capability) {
				return h, nil
			}
		}
	}
	return docker.RegistryHost{}, fmt.Errorf("registry %s: no host is configured that can be asked", reference.Domain(s.repo))
}

// call is one request below the repository.
type call struct {
	method string
	path   string // "manifests/TAG", say, or with a leading slash, from the root of the host
	query  url.Values
	header http.Header
	body   []byte
	// scope is the action that a token must allow: "pull", "pull,push", ...
	scope string
}

// do makes a request and authorises it. Any answer that came is returned: its caller closes it.
func (s *Store) do(ctx context.Context, c call) (*http.Response, error) {
	host, err := s.origin()
	if err != nil {
		return nil, err
	}
	at := c.path
	if !strings.HasPrefix(at, "/") {
		at = path.Join("/", host.Path, reference.Path(s.repo), at)
	}
	return origin.Do(ctx, host, origin.Request{
		Method: c.method, Path: at, Query: c.query, Header: c.header, Body: c.body, Scope: "repository:" + reference.Path(s.repo) + ":" + c.scope,
	})
}

var acceptManifests = http.Header{
	"Accept":        {ocispecs.MediaTypeImageIndex + ", " + ocispecs.MediaTypeImageManifest + ", */*"},
	"Cache-Control": {"no-cache"},
}

// at is what a tag refers to at a moment.
type at struct {
	digest digest.Digest // empty: there is no such tag
	etag   string        // a strong one, or empty
}

// head asks what a tag refers to.
func (s *Store) head(ctx context.Context, tag string) (at, error) {
	resp, err := s.do(ctx, call{method: http.MethodHead, path: "manifests/" + tag, header: acceptManifests, scope: "pull"})
	if err != nil {
		return at{}, err
	}
	origin.Discard(resp)
	switch d := digest.Digest(resp.Header.Get("Docker-Content-Digest")); {
	case resp.StatusCode == http.StatusNotFound:
		return s.sighted(tag, at{}), nil
	case resp.StatusCode == http.StatusMethodNotAllowed, resp.StatusCode == http.StatusOK && d.Validate() != nil:
		_, a, err := s.get(ctx, tag)
		return a, err
	case resp.StatusCode != http.StatusOK:
		return at{}, origin.Unexpected(resp)
	default:
		return s.sighted(tag, at{d, strong(resp)}), nil
	}
}

// get reads what a tag refers to. Of more than maxTagged bytes it returns the first.
func (s *Store) get(ctx context.Context, tag string) ([]byte, at, error) {
	resp, err := s.do(ctx, call{method: http.MethodGet, path: "manifests/" + tag, header: acceptManifests, scope: "pull"})
	if err != nil {
		return nil, at{}, err
	}
	defer origin.Discard(resp)
	switch resp.StatusCode {
	case http.StatusNotFound:
		return nil, s.sighted(tag, at{}), nil
	case http.StatusOK:
	default:
		return nil, at{}, origin.Unexpected(resp)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxTagged+1))
	if err != nil {
		return nil, at{}, err
	}
	a := at{digest.FromBytes(b), strong(resp)}
	if len(b) > maxTagged { // all that is needed is what it is called
		if d := digest.Digest(resp.Header.Get("Docker-Content-Digest")); d.Validate() == nil {
			a.digest = d
		}
	}
	return b, s.sighted(tag, a), nil
}

// sighted notes whether a tag was there.
func (s *Store) sighted(tag string, a at) at {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.digest == "" {
		delete(s.present, tag)
	} else if s.present[tag].IsZero() {
		s.present[tag] = time.Now()
	}
	return a
}

// existed tells whether a tag is known to have been there at a time, and since.
func (s *Store) existed(tag string, when time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.present[tag].IsZero() && !s.present[tag].After(when)
}

// strong is the tag of an answer's content that a condition can name.
func strong(resp *http.Response) string {
	if e := resp.Header.Get("ETag"); strings.HasPrefix(e, `"`) {
		return e
	}
	return ""
}

// put stores a manifest or an index under a tag or its digest.
func (s *Store) put(ctx context.Context, name, mediaType string, b []byte, condition http.Header) error {
	header := http.Header{"Content-Type": {mediaType}}
	for k, v := range condition {
		header[k] = v
	}
	resp, err := s.do(ctx, call{method: http.MethodPut, path: "manifests/" + name, header: header, body: b, scope: "pull,push"})
	if err != nil {
		return err
	}
	defer origin.Discard(resp)
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return origin.Unexpected(resp)
	}
	return nil
}

// remove deletes a tag or a manifest. What is not there is removed.
func (s *Store) remove(ctx context.Context, name string) error {
	resp, err := s.do(ctx, call{method: http.MethodDelete, path: "manifests/" + name, scope: "delete,pull,push"})
	if err != nil {
		return err
	}
	defer origin.Discard(resp)
	if resp.StatusCode != http.StatusNotFound && (resp.StatusCode < 200 || resp.StatusCode > 299) {
		return origin.Unexpected(resp)
	}
	return nil
}

// has tells whether the repository has a blob.
func (s *Store) has(ctx context.Context, d digest.Digest) (bool, error) {
	resp, err := s.do(ctx, call{method: http.MethodHead, path: "blobs/" + d.String(), scope: "pull"})
	if err != nil {
		return false, err
	}
	origin.Discard(resp)
	switch resp.StatusCode {
	case http.StatusOK:
		return true, nil
	case http.StatusNotFound:
		return false, nil
	}
	return false, origin.Unexpected(resp)
}

// Bounds of a listing of tags.
const (
	tagsPerPage = 1000
	maxPages    = 50
	maxPage     = 1 << 20 // bytes
)

// tags lists the tags of the repository.
func (s *Store) tags(ctx context.Context) ([]string, error) {
	var all []string
	c := call{method: http.MethodGet, path: "tags/list", query: url.Values{"n": {fmt.Sprint(tagsPerPage)}}, scope: "pull"}
	for range maxPages {
		resp, err := s.do(ctx, c)
		if err != nil {
			return nil, err
		}
		page, next, err := tagPage(resp)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if next == nil || len(page) == 0 {
			return all, nil
		}
		c.path, c.query = next.Path, next.Query()
	}
	return nil, fmt.Errorf("%s has too many tags", s.name())
}

// tagPage reads one page of a listing, and where the next is.
func tagPage(resp *http.Response) ([]string, *url.URL, error) {
	defer origin.Discard(resp)
	if resp.StatusCode == http.StatusNotFound {
		return nil, nil, nil // no such repository
	}
	if resp.StatusCode != http.StatusOK {
		return nil, nil, origin.Unexpected(resp)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxPage+1))
	if err != nil {
		return nil, nil, err
	}
	var list struct {
		Tags []string `json:"tags"`
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, nil, fmt.Errorf("decode tags: %w", err)
	}
	link := resp.Header.Get("Link") // <URL>; rel="next"
	target, _, ok := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	if !ok || !strings.Contains(link, `rel="next"`) && !strings.Contains(link, "rel=next") {
		return list.Tags, nil, nil
	}
	next, err := url.Parse(target)
	if err != nil {
		return nil, nil, fmt.Errorf("decode tags: %w", err)
	}
	next = resp.Request.URL.ResolveReference(next) // of which path and query are used, not the host
	return list.Tags, next, nil
}
