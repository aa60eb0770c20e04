// Package origin makes requests to the registry that a repository belongs to, about its tags and manifests.
//
// containerd's resolver asks mirrors, whose tags may be old, asks twice for a tag, has no conditions and no way to delete or to list. Who changes what a
// tag refers to beside other machines needs all of that.
package origin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteserrors "github.com/containerd/containerd/v2/core/remotes/errors"
)

// Request is one request. It may be sent more than once.
type Request struct {
	Method string
	Path   string // from the root of the host
	Query  url.Values
	Header http.Header
	Body   []byte
	Scope  string // what a token must allow: "repository:NAME:pull,push"
}

// attempts is how often a request is sent, in order to be authorised: the first shows how.
const attempts = 4

// Do makes a request and authorises it. Any answer that came is returned: its caller closes it.
func Do(ctx context.Context, host docker.RegistryHost, r Request) (*http.Response, error) {
	u := url.URL{Scheme: host.Scheme, Host: host.Host, Path: r.Path, RawQuery: r.Query.Encode()}
	ctx = docker.WithScope(ctx, r.Scope)
	client := host.Client
	if client == nil {
		client = http.DefaultClient
	}
	var answers []*http.Response
	for {
		req, err := http.NewRequestWithContext(ctx, r.Method, u.String(), bytes.NewReader(r.Body))
		if err != nil {
			return nil, err
		}
		for _, h := range []http.Header{host.Header, r.Header} {
			for k, v := range h {
				req.Header[k] = append(req.Header[k], v...)
			}
		}
		if req.Header.Get("User-Agent") == "" {
			req.Header.Set("User-Agent", "optbuild")
		}
		if host.Authorizer != nil {
			if err := host.Authorizer.Authorize(ctx, req); err != nil {
				return nil, fmt.Errorf("authorize: %w", err)
			}
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusUnauthorized || host.Authorizer == nil || len(answers) == attempts-1 {
			return resp, nil
		}
		answers = append(answers, resp)
		if err := host.Authorizer.AddResponses(ctx, answers); err != nil {
			return resp, nil // its status says it
		}
		Discard(resp)
	}
}

// Discard ends an answer of which no more is wanted, so that its connection can be used again.
func Discard(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 4096)
	resp.Body.Close()
}

// Unexpected is the error of an answer's status.
func Unexpected(resp *http.Response) error { return remoteserrors.NewUnexpectedStatusErr(resp) }

// Status is the status that an error is about, 0 if it is about none.
func Status(err error) int {
	var e remoteserrors.ErrUnexpectedStatus
	if errors.As(err, &e) {
		return e.StatusCode
	}
	return 0
}

// Transient tells whether the same request may succeed later: the registry is overloaded or failed, or the connection did. 409 is what some registries answer when a tag is being written already.
func Transient(err error) bool {
	status := Status(err)
	var network net.Error
	return status == http.StatusTooManyRequests || status == http.StatusConflict || status == http.StatusRequestTimeout || status >= 500 ||
		errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)
}

// Sleep returns after d, or with ctx's error.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
