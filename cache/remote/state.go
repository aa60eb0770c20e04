package remote

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
)

// state is what a tag referred to when it was read. It does not change.
type state struct {
	at
	tagged
	entries []identified
	// foreign says what is there instead of a cache of ours; nil for one of ours, also if it is damaged.
	foreign error
}

// read returns the index of a scope: two requests, one if it is known already. Whatever is wrong with what is there is told, and makes it empty.
func (s *Store) read(ctx context.Context, scope string) (*state, error) {
	bounded, cancel := context.WithTimeout(ctx, s.timing.Read)
	defer cancel()
	tag := tagOf(scope)
	b, a, err := s.get(bounded, tag)
	if err != nil {
		return nil, fmt.Errorf("scope %s: %w", scope, err)
	}
	if known := s.remembered(tag, a); known != nil {
		return known, nil
	}
	st := &state{at: a}
	if a.digest != "" {
		if err := s.fill(ctx, scope, st, b); errors.Is(err, errNetwork) {
			return nil, fmt.Errorf("scope %s: %w", scope, err)
		} else if err != nil {
			if errors.Is(err, errForeign) || errors.Is(err, errVersion) {
				st.foreign = err
			}
			s.warn(scope, "what is stored there is not used: %v", err)
		}
	}
	s.remember(tag, st)
	return st, nil
}

// errNetwork is wrapped by errors that say nothing about what is stored.
var errNetwork = errors.New("the registry does not answer as it should")

// fill reads what a tag refers to.
func (s *Store) fill(ctx context.Context, scope string, st *state, b []byte) error {
	t, err := parseTagged(scope, b)
	if err != nil {
		return err
	}
	st.tagged = t
	if err := t.verify(s.o.trusted()); err != nil {
		return err
	}
	packed, err := s.fetch(ctx, t.index, maxPacked)
	switch {
	case errdefs.IsNotFound(err):
		return errors.New("the registry has its index no longer")
	case errors.Is(err, ErrDamaged):
		return err
	case err != nil:
		return fmt.Errorf("%w: %w", errNetwork, err)
	}
	if st.entries, err = decode(scope, packed); err != nil && !errors.Is(err, errVersion) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// remembered returns what a tag was read to be, if that is what it is.
func (s *Store) remembered(tag string, a at) *state {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.known[tag]; known != nil && known.digest == a.digest && a.digest != "" {
		fresh := *known
		fresh.at = a
		return &fresh
	}
	return nil
}

func (s *Store) remember(tag string, st *state) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[tag] = st
}

// look is read for what may be known already: then it is one request without an answer's body.
func (s *Store) look(ctx context.Context, scope string) (*state, error) {
	tag := tagOf(scope)
	s.mu.Lock()
	known := s.known[tag]
	s.mu.Unlock()
	if known != nil {
		bounded, cancel := context.WithTimeout(ctx, s.timing.Read)
		defer cancel()
		a, err := s.head(bounded, tag)
		if err != nil {
			return nil, fmt.Errorf("scope %s: %w", scope, err)
		}
		if a.digest == "" {
			return &state{}, nil
		}
		if st := s.remembered(tag, a); st != nil {
			return st, nil
		}
	}
	return s.read(ctx, scope)
}

// keepsAll tells whether the registry does not let manifests be deleted, after it has been learned, if learned is true.
func (s *Store) keepsAll(learned bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keeps = s.keeps || learned
	return s.keeps
}
