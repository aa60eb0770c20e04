package remote

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/optbuild/optbuild/cache/origin"
)

// A change of an index, beside other writers:
//
//	look: what is the index? ──> is it as it should be? ──yes──> nothing written: done
//	  ^                              │no                         written: done when nobody has changed it for Window+Grace
//	  │                       push the new index and its holders
//	  │                       HEAD: is the tag as it was? ──no──┐
//	  │                          │yes                           │
//	  │                       PUT, at most Window after HEAD began
//	  └──────────────────────────┴──────────────────────────────┘
//
// README.md has the argument why this is enough, and from what.

// ErrBusy says that a change was given up: it could not be made certain that it lasts. It may have been made.
var ErrBusy = errors.New("too many write at the same time, or the registry is too slow")

// errSigned says that who trusts the index of a scope would no longer.
var errSigned = errors.New("it is signed, and there is no key to sign with: it is left as it is")

// wanted returns what the entries of an index should be, and whether they are: then what it returns first does not matter.
type wanted func(current []identified) (entries []identified, done bool)

// change makes the index of a scope as it should be, and returns when that lasts. there, if it is not nil, is called once, when it is so for the first time.
func (s *Store) change(ctx context.Context, scope string, want wanted, there func()) error {
	if err := checkText("scope", scope, maxScopeName, ""); err != nil {
		return err
	}
	select {
	case s.writing <- struct{}{}:
		defer func() { <-s.writing }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	w := &writer{Store: s, scope: scope, tag: tagOf(scope), want: want, there: there}
	limited, cancel := context.WithTimeout(ctx, s.timing.Patience)
	defer cancel()
	err := w.run(limited)
	s.unsettled[w.tag] = err != nil && w.wrote
	if err != nil && ctx.Err() == nil && limited.Err() != nil {
		err = fmt.Errorf("%w (%d attempts in %v)", ErrBusy, w.attempts, s.timing.Patience)
	}
	if err == nil {
		w.tidy(ctx)
	}
	return err
}

// writer is one change.
type writer struct {
	*Store
	scope, tag string
	want       wanted
	there      func()

	attempts int
	troubles int
	wrote    bool // something, perhaps
	// gone are blobs that the registry was seen not to have: entries that need them are dropped.
	gone map[digest.Digest]bool
	// replaced are manifests that this change has made useless.
	replaced []*state
	current  *state
}

func (w *writer) run(ctx context.Context) error {
	w.wrote = w.unsettled[w.tag] // or an earlier change did, and gave up
	var (
		quiet digest.Digest // what the tag has referred to since
		since time.Time
		err   error
	)
	for {
		asked := time.Now()
		if w.current, err = w.look(ctx, w.scope); err != nil {
			return err
		}
		if w.current.foreign != nil {
			return fmt.Errorf("scope %s: %w: it is left as it is", w.scope, w.current.foreign)
		}
		if w.current.signature != "" && w.o.SigningKey == nil {
			return fmt.Errorf("scope %s: %w", w.scope, errSigned)
		}
		entries, done := w.want(w.without(w.current.entries))
		if len(w.without(entries)) < len(entries) {
			return fmt.Errorf("write index: %w: they were not pushed", errGone)
		}
		if done {
			switch {
			case !w.wrote:
				return nil
			case w.current.digest == quiet && asked.Sub(since) >= w.timing.Window+w.timing.Grace:
				return nil
			case w.current.digest != quiet:
				quiet, since = w.current.digest, time.Now()
			}
			if err := origin.Sleep(ctx, time.Until(since.Add(w.timing.Window+w.timing.Grace))); err != nil {
				return err
			}
			continue
		}
		w.attempts++
		outcome, written, err := w.attempt(ctx, entries)
		if err != nil {
			return err
		}
		switch outcome {
		case certain:
			w.current = written
			return nil
		case applied:
			if w.there != nil {
				w.there()
				w.there = nil
			}
			quiet, since = written.digest, time.Now()
			// Who was overwritten by others at the same time need not wait for long to see it.
			if err := origin.Sleep(ctx, (w.timing.Window+w.timing.Grace)/4); err != nil {
				return err
			}
		case unknown:
			quiet = ""
			fallthrough
		case overtaken:
			// Others are at it: come back at different times.
			most := w.timing.Window / 8 << min(w.attempts-1, 3)
			if err := origin.Sleep(ctx, rand.N(most)+1); err != nil {
				return err
			}
		}
	}
}

// outcome is what came of an attempt to write.
type outcome int

const (
	overtaken outcome = iota // nothing was written
	applied                  // it was written, perhaps over something newer
	unknown                  // it may have been written, or may be yet
	certain                  // it was written, over what was read
)

// attempt writes entries over the current index.
func (w *writer) attempt(ctx context.Context, entries []identified) (outcome, *state, error) {
	t, b, err := w.prepare(ctx, entries)
	if errors.Is(err, errGone) {
		return overtaken, nil, nil
	}
	if err != nil {
		return w.trouble(ctx, ctx, overtaken, err)
	}
	next := &state{at: at{digest: digest.FromBytes(b)}, tagged: t, entries: entries}

	window, cancel := context.WithTimeout(ctx, w.timing.Window)
	defer cancel()
	began := time.Now()
	before, err := w.head(window, w.tag)
	if err != nil {
		return w.trouble(ctx, window, overtaken, err)
	}
	if before.digest != w.current.digest {
		return overtaken, nil, nil
	}
	condition, err := w.condition(window, before, b) // which may write
	if errors.Is(err, errOvertaken) {
		return overtaken, nil, nil
	}
	if err == nil && time.Now().Round(0).Sub(began.Round(0)) > w.timing.Window { // by the wall: the other clock stands still while a machine sleeps
		return overtaken, nil, nil
	}
	w.wrote = true
	if err == nil && !errors.Is(err, errAlready) {
		err = w.put(window, w.tag, ocispecs.MediaTypeImageIndex, b, condition)
	}
	if condition != nil && origin.Status(err) == http.StatusPreconditionFailed {
		return w.conditionFailed(window, before)
	}
	if err != nil && !errors.Is(err, errAlready) {
		return w.trouble(ctx, window, unknown, err)
	}
	w.remember(w.tag, next)
	w.sighted(w.tag, next.at)
	w.replaced = append(w.replaced, w.current, next)
	if condition != nil && w.existed(w.tag, began.Add(-w.timing.Window-w.timing.Grace)) {
		return certain, next, nil
	}
	return applied, next, nil
}

// maxTrouble is how often a registry may be too slow, or fail, before a change is given up.
const maxTrouble = 5

// trouble tells what may be better the next time from what is an error. Hosts repeat what only asks; what writes is for its sender to repeat.
func (w *writer) trouble(ctx, window context.Context, o outcome, err error) (outcome, *state, error) {
	late := window.Err() != nil
	if ctx.Err() != nil || !late && !origin.Transient(err) {
		return 0, nil, fmt.Errorf("write index: %w", err)
	}
	if w.troubles++; w.troubles < maxTrouble {
		return o, nil, nil
	}
	if late {
		err = fmt.Errorf("%w (%v do not suffice for it to take an index)", ErrBusy, w.timing.Window)
	}
	return 0, nil, fmt.Errorf("write index: %w", err)
}

// prepare stores everything that the tag will refer to, and returns the bytes that it will.
func (w *writer) prepare(ctx context.Context, entries []identified) (tagged, []byte, error) {
	packed, err := encode(w.scope, entries)
	if err != nil {
		return tagged{}, nil, err
	}
	index, err := w.PushBytes(ctx, mediaTypeIndex, packed)
	if err != nil {
		return tagged{}, nil, err
	}
	held := blobs(entries)
	t := newTagged(w.scope, index)
	manifests, err := t.hold(held)
	if err != nil {
		return tagged{}, nil, err
	}
	for i, m := range manifests {
		if err := w.put(ctx, holderTag(w.tag, i), ocispecs.MediaTypeImageManifest, m, nil); err != nil {
			return tagged{}, nil, w.missing(ctx, held, fmt.Errorf("write manifest: %w", err))
		}
	}
	t.sign(w.o.SigningKey)
	b, err := t.marshal()
	return t, b, err
}

// errGone says that entries can't be stored because blobs that they need are not there.
var errGone = errors.New("some blobs are not in the registry")

// missing finds out whether a manifest was refused because the registry has lost blobs that it names, and which.
func (w *writer) missing(ctx context.Context, held []ocispecs.Descriptor, refusal error) error {
	if status := origin.Status(refusal); status != http.StatusBadRequest && status != http.StatusNotFound && status != http.StatusUnprocessableEntity {
		return refusal
	}
	has := make([]bool, len(held))
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(8)
	for i, d := range held {
		eg.Go(func() (err error) {
			has[i], err = w.has(ctx, d.Digest)
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	if w.gone == nil {
		w.gone = map[digest.Digest]bool{}
	}
	found := false
	for i, d := range held {
		if !has[i] {
			w.gone[d.Digest], found = true, true
		}
	}
	if !found {
		return refusal
	}
	return errGone
}

// without returns the entries all of whose blobs are there, as far as is known.
func (w *writer) without(entries []identified) []identified {
	if len(w.gone) == 0 {
		return entries
	}
	return slices.DeleteFunc(slices.Clone(entries), func(e identified) bool {
		return w.gone[e.Blob.Digest] || slices.ContainsFunc(e.Holds, func(d ocispecs.Descriptor) bool { return w.gone[d.Digest] })
	})
}

// tidyTime bounds what is spent on removing what a change has replaced.
const tidyTime = 10 * time.Second

// tidy deletes the manifests that a change has replaced, where the registry lets it: some keep the blobs of every manifest that they have. It is no error if it doesn't, and it is not
// tried again then.
//
// Nothing that is in use is deleted: all of them have a nonce, so what this change has replaced is nobody else's.
func (w *writer) tidy(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, tidyTime)
	defer cancel()
	keep := map[digest.Digest]bool{w.current.digest: true, "": true}
	for _, d := range w.current.holders {
		keep[d.Digest] = true
	}
	for _, st := range w.replaced {
		for _, d := range append([]ocispecs.Descriptor{{Digest: st.digest}}, st.holders...) {
			if keep[d.Digest] || w.keepsAll(false) {
				continue
			}
			keep[d.Digest] = true
			if w.remove(ctx, d.Digest.String()) != nil {
				w.keepsAll(true)
			}
		}
	}
}
