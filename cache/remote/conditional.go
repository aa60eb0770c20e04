package remote

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/cache/origin"
)

// errOvertaken says that somebody else has written while it was found out.
var errOvertaken = errors.New("it has changed")

// errAlready says that finding out whether a registry knows conditions has written what was to be written.
var errAlready = errors.New("it is written")

// support is whether a registry honours conditions of a PUT.
type support int

const (
	untried support = iota
	honoured
	ignored
)

// condition returns the headers that make a PUT fail if the tag is no longer as it was before; nil if the registry does not know such conditions.
//
// Whether it does is found out once, by a condition that can't hold. A registry that takes no notice of it has stored what was to be stored anyhow: errAlready.
func (w *writer) condition(ctx context.Context, before at, b []byte) (http.Header, error) {
	if before.digest == "" {
		return http.Header{"If-None-Match": {"*"}}, nil // taken notice of or not
	}
	if before.etag == "" {
		return nil, nil
	}
	condition := http.Header{"If-Match": {before.etag}}
	switch w.conditions(untried) {
	case honoured:
		return condition, nil
	case ignored:
		return nil, nil
	}
	err := w.put(ctx, w.tag, ocispecs.MediaTypeImageIndex, b, http.Header{"If-Match": {`"` + strings.Repeat("0", 64) + `"`}})
	switch status := origin.Status(err); {
	case err == nil:
		w.conditions(ignored)
		return nil, errAlready
	case status == http.StatusBadRequest || status == http.StatusNotImplemented: // it dislikes the header, perhaps
		w.conditions(ignored)
		return nil, nil
	case status != http.StatusPreconditionFailed:
		return nil, err
	}
	// Something between here and there might look at conditions when the request is done already.
	after, err := w.head(ctx, w.tag)
	switch {
	case err != nil:
		return nil, err
	case after.digest == digest.FromBytes(b):
		w.conditions(ignored)
		return nil, errAlready
	case after.digest != before.digest:
		return nil, errOvertaken
	}
	w.conditions(honoured)
	return condition, nil
}

// conditions returns what is known about the registry, after it has learned something, if that is not untried.
func (s *Store) conditions(learned support) support {
	s.mu.Lock()
	defer s.mu.Unlock()
	if learned != untried {
		s.conditional = learned
	}
	return s.conditional
}

// conditionFailed looks why: the tag has changed, or the registry is wrong about it, and then conditions are of no use.
func (w *writer) conditionFailed(ctx context.Context, before at) (outcome, *state, error) {
	after, err := w.head(ctx, w.tag)
	if err != nil {
		return 0, nil, err
	}
	if after.digest == before.digest {
		w.conditions(ignored)
	}
	return unknown, nil, nil
}
