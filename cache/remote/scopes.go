package remote

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Scope is what a repository has of one scope.
type Scope struct {
	Name    string
	Tag     string
	Digest  digest.Digest // of what the tag refers to
	Entries []Entry       // newest first
	// IndexBytes is what a build reads to know them; Bytes is the sum of the sizes of the distinct blobs, which it reads as it needs them.
	IndexBytes, Bytes int64
	// Problem says why there are no entries: what is stored is damaged, foreign or not trusted. Empty: nothing is wrong.
	Problem string
}

// Scopes reads all scopes that the repository has, in the order of their names.
func (s *Store) Scopes(ctx context.Context) ([]Scope, error) {
	tags, err := s.tags(ctx)
	if err != nil {
		return nil, fmt.Errorf("list cache %s: %w", s.name(), err)
	}
	tags = slices.DeleteFunc(tags, func(t string) bool { return !strings.HasPrefix(t, tagPrefix) || endsHeld(t) })
	found := make([]Scope, len(tags))
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(8)
	for i, tag := range tags {
		eg.Go(func() (err error) {
			found[i], err = s.scope(ctx, tag)
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return nil, fmt.Errorf("list cache %s: %w", s.name(), err)
	}
	found = slices.DeleteFunc(found, func(c Scope) bool { return c.Digest == "" }) // removed meanwhile
	slices.SortFunc(found, func(a, b Scope) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Tag, b.Tag)) })
	return found, nil
}

// scope reads what a tag refers to.
func (s *Store) scope(ctx context.Context, tag string) (Scope, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timing.Read)
	defer cancel()
	b, a, err := s.get(ctx, tag)
	c := Scope{Tag: tag, Name: strings.TrimPrefix(tag, tagPrefix), Digest: a.digest}
	if err != nil || a.digest == "" {
		return c, err
	}
	var x ocispecs.Index
	if len(b) <= maxTagged && json.Unmarshal(b, &x) == nil && x.Annotations[annotationScope] != "" {
		name := x.Annotations[annotationScope]
		if tagOf(name) != tag || checkText("scope", name, maxScopeName, "") != nil {
			c.Problem = "it says that it is the index of another scope"
			return c, nil
		}
		c.Name = name
	}
	st := &state{at: a}
	if err := s.fill(ctx, c.Name, st, b); errors.Is(err, errNetwork) {
		return c, err
	} else if err != nil {
		c.Problem = err.Error()
		return c, nil
	}
	s.remember(tag, st)
	for _, e := range st.entries {
		e.Scope = c.Name
		c.Entries = append(c.Entries, e.Entry)
	}
	c.IndexBytes, c.Bytes = int64(len(b))+st.index.Size, sumBytes(st.entries)
	return c, nil
}

// RemoveScope removes a scope, by its Tag or, if that is empty, its Name. Where the registry does not delete, the tag stays, with an index that is empty, and deleted is false.
// An entry that is added at the same time may come back, or be lost.
func (s *Store) RemoveScope(ctx context.Context, c Scope) (deleted bool, err error) {
	if c.Tag == "" {
		c.Tag = tagOf(c.Name)
	}
	if s.delete(ctx, c.Tag) {
		return true, nil
	}
	_, err = s.Remove(ctx, c.Name, func(Entry) bool { return true })
	return false, err
}

// delete deletes a tag with what it refers to, and tells whether that is so.
func (s *Store) delete(ctx context.Context, tag string) bool {
	b, a, err := s.get(ctx, tag)
	if err != nil {
		return false
	}
	if a.digest == "" {
		return true
	}
	// By tag, which some registries don't know, and by digest, which deletes the tags, too, with some.
	names := []string{tag, holderTag(tag, 0), a.digest.String()}
	var x ocispecs.Index
	if len(b) <= maxTagged && json.Unmarshal(b, &x) == nil && x.ArtifactType == artifactType {
		for i, m := range x.Manifests[:min(len(x.Manifests), maxHolders)] {
			if i > 0 {
				names = append(names, holderTag(tag, i))
			}
			if m.Digest.Validate() == nil {
				names = append(names, m.Digest.String())
			}
		}
	}
	for _, n := range names {
		_ = s.remove(ctx, n)
	}
	after, err := s.head(ctx, tag)
	return err == nil && after.digest == ""
}

// Bytes is what the distinct blobs of entries take.
func Bytes(entries []Entry) int64 { return sumBytes(identify(entries)) }
