package index

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/cache/origin"
)

// A change of an index beside other machines':
//
//	GET: what is it? ──> as it should be? ──yes──> nothing written: done
//	  ^                    │no                     written: done when it has been so for window+grace
//	  │                  HEAD: as it was? ──no──┐
//	  │                    │yes                 │
//	  │                  PUT, at most window after HEAD began, with If-Match
//	  └────────────────────┴────────────────────┘
//
// A registry need not honour conditions, which the OCI specification does not have: then one may overwrite what another has just written. It has read the tag at most window+grace
// before its own index appears. So who sees the tag unchanged for that long knows that whoever writes later has read what is there, and keeps it. Assumed: the tag is a register (what was
// stored is read afterwards), and a PUT that was given up takes effect within grace or never. What is left: two machines that write the same bytes in turn while a third overwrites them.

// timing are the times of the argument above.
type timing struct {
	window, grace time.Duration
	// patience is how long a change may take.
	patience time.Duration
}

var usual = timing{window: 2 * time.Second, grace: 2 * time.Second, patience: 3 * time.Minute}

// ErrBusy says that a change could not be made certain to last. It may have been made.
var ErrBusy = errors.New("too many write at the same time, or the registry is too slow")

// maxTrouble is how often a registry may fail before a change is given up.
const maxTrouble = 5

// change makes of an index what want says, and returns it when that lasts. want is given a copy, an empty one if the tag is not there; it may be called often.
func (t tag) change(ctx context.Context, tm timing, want func(context.Context, seen) (ocispecs.Index, error)) (x ocispecs.Index, d digest.Digest, err error) {
	limited, cancel := context.WithTimeout(ctx, tm.patience)
	defer cancel()
	defer func() {
		if err != nil && ctx.Err() == nil && limited.Err() != nil {
			err = fmt.Errorf("%w (tried for %v)", ErrBusy, tm.patience)
		}
	}()
	var (
		wrote    bool
		quiet    digest.Digest // what the tag has referred to since
		since    time.Time
		troubles int
	)
	for attempt := 0; ; {
		asked := time.Now()
		now, err := t.get(limited)
		if err != nil {
			return x, d, err
		}
		if x, err = want(limited, now); err != nil {
			return x, d, err
		}
		mediaType, b, err := encode(x)
		if err != nil {
			return x, d, err
		}
		if d = digest.FromBytes(b); now.digest != "" && same(now, x) {
			d = now.digest
			switch {
			case !wrote, d == quiet && asked.Sub(since) >= tm.window+tm.grace:
				return x, d, nil
			case d != quiet:
				quiet, since = d, time.Now()
			}
			if err := origin.Sleep(limited, time.Until(since.Add(tm.window+tm.grace))); err != nil {
				return x, d, err
			}
			continue
		}
		err = t.attempt(limited, tm, now, mediaType, b, &wrote)
		switch {
		case err == nil:
			quiet, since = d, time.Now()
			// Who was overwritten need not wait for long to see it.
			if err := origin.Sleep(limited, (tm.window+tm.grace)/4); err != nil {
				return x, d, err
			}
			continue
		case limited.Err() != nil:
			return x, d, err
		case errors.Is(err, errOvertaken):
		case !errors.Is(err, context.DeadlineExceeded) && !origin.Transient(err):
			return x, d, err
		default:
			if troubles++; troubles == maxTrouble {
				return x, d, err
			}
		}
		quiet = ""
		// Others are at it: come back at different times.
		most := tm.window / 8 << min(attempt, 3)
		attempt++
		if err := origin.Sleep(limited, rand.N(most)+1); err != nil {
			return x, d, err
		}
	}
}

// same reports whether a tag refers to an index of the same content, however it is written.
func same(now seen, x ocispecs.Index) bool {
	var is ocispecs.Index
	if json.Unmarshal(now.content, &is) != nil || !isIndex(now.mediaType, now.content) {
		return false
	}
	_, a, err := encode(is)
	if err != nil {
		return false
	}
	_, b, err := encode(x)
	return err == nil && string(a) == string(b)
}

// attempt writes over what the tag was when it was read.
func (t tag) attempt(ctx context.Context, tm timing, now seen, mediaType string, b []byte, wrote *bool) error {
	ctx, cancel := context.WithTimeout(ctx, tm.window)
	defer cancel()
	before, err := t.head(ctx)
	if err != nil {
		return err
	}
	if before.digest != now.digest {
		return errOvertaken
	}
	*wrote = true // perhaps
	return t.put(ctx, mediaType, b, before)
}
