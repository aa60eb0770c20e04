package index

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/referrer"
	"github.com/optbuild/optbuild/cache/origin"
)

// tag is one at its registry.
type tag struct {
	hosts docker.RegistryHosts
	named reference.NamedTagged
}

// seen is what a tag referred to at a moment; zero: there was no such tag.
type seen struct {
	digest    digest.Digest
	etag      string // a strong one, or empty
	mediaType string
	content   []byte // not from head
}

var accepted = strings.Join([]string{
	ocispecs.MediaTypeImageIndex, images.MediaTypeDockerSchema2ManifestList, ocispecs.MediaTypeImageManifest, images.MediaTypeDockerSchema2Manifest, "*/*",
}, ", ")

func (t tag) origin() (docker.RegistryHost, error) {
	hosts, err := t.hosts(reference.Domain(t.named))
	if err != nil {
		return docker.RegistryHost{}, err
	}
	for _, h := range hosts {
		if h.Capabilities.Has(docker.HostCapabilityPush) {
			return h, nil
		}
	}
	return docker.RegistryHost{}, fmt.Errorf("registry %s: no host is configured that takes pushes", reference.Domain(t.named))
}

// do makes a request about the tag, and authorises it. The caller closes the answer.
func (t tag) do(ctx context.Context, method string, body []byte, header http.Header) (*http.Response, error) {
	host, err := t.origin()
	if err != nil {
		return nil, err
	}
	return origin.Do(ctx, host, origin.Request{
		Method: method, Path: path.Join("/", host.Path, reference.Path(t.named), "manifests", t.named.Tag()), Header: header, Body: body,
		Scope: "repository:" + reference.Path(t.named) + ":pull,push",
	})
}

// head asks what the tag refers to.
func (t tag) head(ctx context.Context) (seen, error) { return t.look(ctx, http.MethodHead) }

// get reads it, too.
func (t tag) get(ctx context.Context) (seen, error) { return t.look(ctx, http.MethodGet) }

func (t tag) look(ctx context.Context, method string) (seen, error) {
	resp, err := t.do(ctx, method, nil, http.Header{"Accept": {accepted}, "Cache-Control": {"no-cache"}})
	if err != nil {
		return seen{}, err
	}
	defer origin.Discard(resp)
	switch resp.StatusCode {
	case http.StatusNotFound:
		return seen{}, nil
	case http.StatusOK:
	default:
		return seen{}, origin.Unexpected(resp)
	}
	s := seen{digest: digest.Digest(resp.Header.Get("Docker-Content-Digest")), mediaType: resp.Header.Get("Content-Type")}
	if e := resp.Header.Get("ETag"); strings.HasPrefix(e, `"`) {
		s.etag = e
	}
	if method == http.MethodHead {
		if s.digest.Validate() != nil { // not all registries say it
			return t.get(ctx)
		}
		return s, nil
	}
	if s.content, err = io.ReadAll(io.LimitReader(resp.Body, referrer.MaxManifest+1)); err != nil {
		return seen{}, err
	}
	if len(s.content) > referrer.MaxManifest {
		return seen{}, fmt.Errorf("%s has more than %d bytes: it is no index", t.named, referrer.MaxManifest)
	}
	s.digest = digest.FromBytes(s.content)
	return s, nil
}

// errOvertaken says that the tag is no longer what it was expected to be.
var errOvertaken = errors.New("it has changed")

// put stores an index under the tag if that still refers to before, as far as the registry honours conditions.
func (t tag) put(ctx context.Context, mediaType string, b []byte, before seen) error {
	header := http.Header{"Content-Type": {mediaType}}
	switch {
	case before.digest == "":
		header.Set("If-None-Match", "*")
	case before.etag != "":
		header.Set("If-Match", before.etag)
	}
	resp, err := t.do(ctx, http.MethodPut, b, header)
	if err != nil {
		return err
	}
	defer origin.Discard(resp)
	switch {
	case resp.StatusCode == http.StatusPreconditionFailed:
		return errOvertaken
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return origin.Unexpected(resp)
	}
	return nil
}
