package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/optbuild/optbuild/cache/origin"
)

// TestWritersLoseNothing: writers add entries one after another, all at the same time, to a registry whose answers and whose effects are late, up to what Timing allows and beyond. All entries of
// every Add that has returned must be there, from then on.
func TestWritersLoseNothing(t *testing.T) {
	timing := Timing{Patience: time.Hour}.orDefault()
	for _, c := range []struct {
		name          string
		writers, adds int
		conditional   bool
		before, after time.Duration
	}{
		{"two", 2, 100, false, timing.Window / 4, timing.Window / 4},
		{"two, conditional", 2, 40, true, timing.Window / 4, timing.Window / 4},
		{"eight", 8, 20, false, timing.Window / 4, timing.Window / 4},
		{"eight, conditional", 8, 10, true, timing.Window / 4, timing.Window / 4},
		// Requests take longer than they may, and take effect after their senders have given them up: up to Grace later.
		{"two, late", 2, 30, false, 3 * timing.Window, timing.Window},
		{"four, late", 4, 10, false, 2 * timing.Window, timing.Window},
		{"eight, fast", 8, 10, false, time.Millisecond, time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				f.conditional = c.conditional
				f.before, f.after, f.grace = upTo(c.before), upTo(c.after), timing.Grace
				f.upload = upTo(2 * timing.Window)
				lost := race(t, f, c.writers, c.adds, timing)
				if len(lost) > 0 {
					t.Errorf("%d of %d entries are lost: %v", len(lost), c.writers*c.adds, lost[:min(len(lost), 5)])
				}
			})
		})
	}
}

// race has writers add entries, each with a store of its own, as if they were programs on different machines, and returns what is not there in the end, or was lost after its Add had returned.
func race(t *testing.T, f *fake, writers, adds int, timing Timing) (lost []string) {
	var (
		mu        sync.Mutex
		confirmed []Entry
		wg        sync.WaitGroup
	)
	for w := range writers {
		wg.Go(func() {
			s := f.open(t, Options{Write: "main"})
			s.timing = timing
			for i := range adds {
				e := entry("test", fmt.Sprintf("%d/%d", w, i), when, layer(fmt.Sprint("layer", i), 10))
				err := s.Add(context.Background(), []Entry{e})
				for errors.Is(err, ErrBusy) {
					err = s.Add(context.Background(), []Entry{e})
				}
				if err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
				mu.Lock()
				confirmed = append(confirmed, e)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	f.pending.Wait()
	x, err := f.open(t, Options{Read: []string{"main"}}).Load(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range confirmed {
		if !x.Has(e) {
			lost = append(lost, e.Key)
		}
	}
	return lost
}

// TestRaceIsOne is the proof that the test above would see a loss: a writer that does not wait long enough to see its entries last loses some.
func TestRaceIsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		hasty := Timing{}.orDefault()
		f.before, f.after = upTo(hasty.Window/4), upTo(hasty.Window/4)
		hasty.Grace = -hasty.Window
		if lost := race(t, f, 4, 20, hasty); len(lost) == 0 {
			t.Error("nothing was lost, though nobody waited")
		}
	})
}

// TestConditionsSpareWaiting: where the registry honours conditions, nobody waits.
func TestConditionsSpareWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.conditional = true
		s := f.open(t, Options{Write: "main"})
		for i := range 3 {
			began := time.Now()
			if err := s.Add(t.Context(), []Entry{entry("test", fmt.Sprint(i), when)}); err != nil {
				t.Fatal(err)
			}
			// The first makes the tag: there is nothing to compare with.
			if d := time.Since(began); i > 0 && d != 0 {
				t.Errorf("Add %d waited %v", i, d)
			}
		}
		if s.conditions(untried) != honoured {
			t.Error("conditions are not known to be honoured")
		}
	})
}

// TestDyingWriter cuts the writer off at each of its requests in turn, as if it had died there, with the request done and not done: what is there must be a valid cache with the entries of before, and
// the next writer must be able to go on.
func TestDyingWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, done := range []bool{false, true} {
			for cut := 0; ; cut++ {
				f := newFake()
				f.checkBlobs = true
				first, second, third := pushed(t, f, "1"), pushed(t, f, "2"), pushed(t, f, "3")
				if err := f.open(t, Options{Write: "main"}).Add(t.Context(), []Entry{first}); err != nil {
					t.Fatal(err)
				}
				start, died := f.count(), false
				f.fail = func(n int, r *http.Request, body []byte) (*http.Response, error) {
					if n < start+cut {
						return nil, nil
					}
					if n == start+cut && done {
						f.apply(r, body)
					}
					died = true
					return nil, errCut
				}
				err := f.open(t, Options{Write: "main"}).Add(t.Context(), []Entry{second})
				if died && err == nil && !tidying(f, start+cut) {
					t.Errorf("request %d was cut, and Add says that all is well: %v", cut, f.since(start))
				}
				f.fail = nil
				var w warnings
				s := f.open(t, Options{Write: "main", Warn: w.add})
				x, err := s.Load(t.Context())
				if err != nil || !x.Has(first) || w.String() != "" {
					t.Fatalf("request %d (done: %v) was cut: the cache is no longer valid: %v, %s", cut, done, err, &w)
				}
				if err := s.Add(t.Context(), []Entry{third}); err != nil {
					t.Fatalf("request %d was cut: the next writer: %v", cut, err)
				}
				x, err = f.open(t, Options{Read: []string{"main"}}).Load(t.Context())
				if err != nil || !x.Has(first) || !x.Has(third) {
					t.Fatalf("request %d was cut: the next writer's index: %v", cut, err)
				}
				if !died {
					if cut < 8 {
						t.Errorf("only %d requests were made", cut)
					}
					break
				}
			}
		}
	})
}

// tidying tells whether the nth request was about removing what is no longer needed: that may fail.
func tidying(f *fake, n int) bool { return f.since(n)[0][:6] == "DELETE" }

// pushed is an entry whose blobs are in the registry.
func pushed(t *testing.T, f *fake, key string) Entry {
	t.Helper()
	s := f.open(t, Options{})
	b, err := s.PushBytes(t.Context(), "application/x-test", []byte("entry "+key))
	if err != nil {
		t.Fatal(err)
	}
	return Entry{Kind: "test", Key: key, Created: when, Blob: b}
}

// TestSlowRegistry: a registry that never takes an index in time is an error, not a build that hangs.
func TestSlowRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.fail = func(_ int, r *http.Request, _ []byte) (*http.Response, error) {
			if writes(r) {
				<-r.Context().Done()
			}
			return nil, r.Context().Err()
		}
		began := time.Now()
		err := f.open(t, Options{Write: "main"}).Add(t.Context(), []Entry{entry("a", "1", when)})
		if !errors.Is(err, ErrBusy) {
			t.Errorf("Add = %v, want ErrBusy", err)
		}
		if d := time.Since(began); d > 30*time.Second {
			t.Errorf("it took %v", d)
		}
		f.pending.Wait()
	})
}

// TestTroubleIsTriedAgain: what writes is not repeated by the hosts.
func TestTroubleIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, trouble := range map[string]func(r *http.Request) (*http.Response, error){
			"429": func(r *http.Request) (*http.Response, error) { return answer(r, http.StatusTooManyRequests, ""), nil },
			"500": func(r *http.Request) (*http.Response, error) {
				return answer(r, http.StatusInternalServerError, ""), nil
			},
			"reset": func(*http.Request) (*http.Response, error) { return nil, errCut },
		} {
			f := newFake()
			puts := map[string]int{}
			f.fail = func(_ int, r *http.Request, _ []byte) (*http.Response, error) {
				kind := "tag"
				if !writes(r) {
					kind = "holder"
				}
				if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/manifests/") || puts[kind] == 1 {
					return nil, nil
				}
				puts[kind]++
				return trouble(r)
			}
			s := f.open(t, Options{Write: "main"})
			e := entry("a", "1", when)
			if err := s.Add(t.Context(), []Entry{e}); err != nil {
				t.Errorf("%s: Add = %v", name, err)
			}
			if x, err := s.Load(t.Context()); err != nil || !x.Has(e) {
				t.Errorf("%s: %v", name, err)
			}
		}
		f := newFake()
		f.fail = func(_ int, r *http.Request, _ []byte) (*http.Response, error) {
			if writes(r) {
				return answer(r, http.StatusForbidden, ""), nil
			}
			return nil, nil
		}
		if err := f.open(t, Options{Write: "main"}).Add(t.Context(), []Entry{entry("a", "1", when)}); origin.Status(err) != http.StatusForbidden {
			t.Errorf("forbidden: Add = %v", err)
		}
		if got := strings.Count(strings.Join(f.since(0), "\n")+"\n", "PUT manifests/optbuild-cache-main\n"); got != 1 {
			t.Errorf("what is forbidden was tried %d times", got)
		}
	})
}

// TestAddThen: those who can't wait are called when readers find the entries, before it is certain that they stay; and also when there is nothing to write, or it fails.
func TestAddThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		s := f.open(t, Options{Write: "main"})
		e := entry("test", "a", when, layer("layer", 10))
		began := time.Now()
		var found int
		var after time.Duration
		called := 0
		there := func() {
			called++
			after = time.Since(began)
			x, err := f.open(t, Options{Read: []string{"main"}}).Load(t.Context())
			if err != nil {
				t.Error(err)
			}
			found = len(x.Find("test", "a"))
		}
		if err := s.AddThen(t.Context(), []Entry{e}, there); err != nil {
			t.Fatal(err)
		}
		if certain := time.Since(began); found != 1 || called != 1 || after >= certain {
			t.Errorf("called %d times, after %v of %v, with %d entries", called, after, certain, found)
		}
		if err := s.AddThen(t.Context(), []Entry{e}, there); err != nil || called != 2 {
			t.Errorf("nothing to write: %v, called %d times", err, called)
		}
		if err := f.open(t, Options{}).AddThen(t.Context(), []Entry{e}, there); err == nil || called != 3 {
			t.Errorf("an error: %v, called %d times", err, called)
		}
	})
}
