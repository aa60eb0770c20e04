package remote

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestBounds(t *testing.T) {
	const day = 24 * time.Hour
	now := when.Add(1000 * day)
	ago := func(kind, name string, age time.Duration, holds ...ocispecs.Descriptor) Entry {
		return entry(kind, name, now.Add(-age), holds...)
	}
	big, small, huge := layer("big", 1000), layer("small", 10), layer("huge", 1<<40)
	for _, c := range []struct {
		name    string
		bounds  Bounds
		entries []Entry
		want    string
	}{
		{"age", Bounds{MaxAge: 2 * day}, []Entry{ago("a", "1", day), ago("a", "2", 3*day)}, "1"},
		{"by default 30 days", Bounds{}, []Entry{ago("a", "1", 29*day), ago("a", "2", 31*day)}, "1"},
		{"no age", Bounds{MaxAge: -1}, []Entry{ago("a", "1", 999*day)}, "1"},
		{"keep last of each kind", Bounds{MaxAge: day, KeepLast: 1}, []Entry{ago("a", "1", 2*day), ago("a", "2", 3*day), ago("b", "3", 4*day)}, "1 3"},
		{"entries", Bounds{MaxEntries: 2}, []Entry{ago("a", "1", 3*day), ago("a", "2", day), ago("a", "3", 2*day)}, "2 3"},
		{"bytes", Bounds{MaxBytes: 1300}, []Entry{ago("a", "1", 0, big), ago("a", "2", 1, small), ago("a", "3", 2, small)}, "1 2"},
		{"shared blobs count once", Bounds{MaxBytes: 1300}, []Entry{ago("a", "1", 0, big), ago("a", "2", 1, big), ago("a", "3", 2, big)}, "1 2 3"},
		{"one that is too large does not push out the others", Bounds{MaxBytes: 1300}, []Entry{ago("a", "1", 0, huge), ago("a", "2", 1, big)}, "2"},
		{"a clock that is years ahead keeps nothing", Bounds{}, []Entry{ago("a", "1", -999*day), ago("a", "2", day)}, "2"},
		{"a clock that is minutes ahead", Bounds{}, []Entry{ago("a", "1", -time.Minute)}, "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var keys []string
			for _, e := range c.bounds.apply(identify(c.entries), now) {
				keys = append(keys, e.Key)
			}
			if got := strings.Join(keys, " "); got != c.want {
				t.Errorf("stays %q, want %q", got, c.want)
			}
		})
	}
}

// TestBoundsKeepAnIndexReadable: whatever is added, the index is one that readers accept.
func TestBoundsKeepAnIndexReadable(t *testing.T) {
	note := map[string]string{}
	for i := range maxPairs {
		note[fmt.Sprint(i)] = strings.Repeat("x", 500)
	}
	var talkative, holding []Entry
	for i := range 3000 {
		e := entry("a", fmt.Sprint(i), when)
		e.Note = note
		talkative = append(talkative, e)
	}
	var layers []ocispecs.Descriptor
	for i := range 9000 {
		layers = append(layers, layer(fmt.Sprint(i), 1))
	}
	for i := range 40 {
		holding = append(holding, entry("a", fmt.Sprint(i), when, layers...))
	}
	for name, entries := range map[string][]Entry{"notes": talkative, "holds": holding} {
		all := identify(entries)
		stay := Bounds{KeepLast: len(all)}.apply(all, when)
		b, err := encode("main", stay)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := decode("main", b)
		if err != nil || len(got) != len(stay) || len(stay) == 0 || len(stay) == len(all) {
			t.Errorf("%s: %d of %d entries stay, %d are read: %v", name, len(stay), len(all), len(got), err)
		}
	}
}

// TestManyPushes: 500 builds, each with new layers and a few old ones, do not make the cache grow beyond its bound.
func TestManyPushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		s := f.open(t, Options{Write: "main", Bounds: Bounds{MaxBytes: 1 << 30}})
		random := rand.New(rand.NewPCG(1, 2))
		var most int64
		for i := range 500 {
			var holds []ocispecs.Descriptor
			for range 3 {
				n := random.IntN(i + 1)
				holds = append(holds, layer(fmt.Sprint("old", n), int64(n)<<16), layer(fmt.Sprint(i, random.Int()), random.Int64N(64<<20)))
			}
			if err := s.Add(t.Context(), []Entry{entry("solver", "build", time.Now(), holds...)}); err != nil {
				t.Fatal(err)
			}
			most = max(most, sumBytes(s.known[tagOf("main")].entries))
			time.Sleep(time.Hour)
		}
		if most > 1<<30 || most < 1<<29 {
			t.Errorf("it grew to %d bytes", most)
		}
		// What was replaced is not left behind: of 500 indexes one is there.
		scopes, err := s.Scopes(t.Context())
		if err != nil || len(scopes) != 1 || scopes[0].Bytes > 1<<30 || scopes[0].IndexBytes > 64<<10 {
			t.Fatalf("Scopes = %+v, %v", scopes, err)
		}
		deleted := 0
		for _, r := range f.since(0) {
			if strings.HasPrefix(r, "DELETE") {
				deleted++
			}
		}
		if deleted != 2*499 {
			t.Errorf("%d manifests were deleted, want those of 499 indexes", deleted)
		}
	})
}

// TestOwnEntryDoesNotFit: it is said, and there is no end to the attempts otherwise.
func TestOwnEntryDoesNotFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		var w warnings
		s := f.open(t, Options{Write: "main", Bounds: Bounds{MaxBytes: 500}, Warn: w.add})
		fits := entry("a", "fits", when)
		if err := s.Add(t.Context(), []Entry{entry("a", "large", when, layer("large", 1000)), fits}); err != nil {
			t.Fatal(err)
		}
		if want := "does not fit into its bounds"; strings.Count(w.String(), want) != 1 {
			t.Errorf("told %q", &w)
		}
		if x, err := s.Load(t.Context()); err != nil || len(x.All("")) != 1 || !x.Has(fits) {
			t.Errorf("entries %v, %v", x.All(""), err)
		}
	})
}

func TestCollectAndRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.before, f.after = upTo(time.Second), upTo(time.Second)
		ctx := t.Context()
		s := f.open(t, Options{Write: "main"})
		var entries []Entry
		for i := range 10 {
			entries = append(entries, entry("a", fmt.Sprint(i), when.Add(-time.Duration(i)*time.Hour)))
		}
		if err := s.Add(ctx, entries); err != nil {
			t.Fatal(err)
		}
		other := f.open(t, Options{Write: "main"})
		done := make(chan error)
		added := entry("a", "added", when)
		go func() { done <- other.Add(ctx, []Entry{added}) }()
		c, err := f.open(t, Options{}).Collect(ctx, "main", Bounds{MaxAge: 90 * time.Minute, KeepLast: 4})
		if err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if len(c.Removed) < 6 || c.BeforeBytes != 1000 || c.AfterBytes > 500 {
			t.Errorf("collected %+v", c)
		}
		x, err := f.open(t, Options{Read: []string{"main"}}).Load(ctx)
		if err != nil || !x.Has(added) {
			t.Errorf("an entry that was added while others were collected is lost: %v, %v", x.All(""), err)
		}
		if _, err := s.Remove(ctx, "main", func(e Entry) bool { return e.Key == "added" }); err != nil {
			t.Fatal(err)
		}
		if x, err := s.Load(ctx); err != nil || x.Has(added) {
			t.Errorf("not removed: %v", err)
		}
	})
}

func TestScopes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, deletes := range []bool{true, false} {
			f := newFake()
			if !deletes {
				f.fail = func(_ int, r *http.Request, _ []byte) (*http.Response, error) {
					if r.Method == http.MethodDelete {
						return answer(r, http.StatusMethodNotAllowed, ""), nil
					}
					return nil, nil
				}
			}
			ctx := t.Context()
			for _, scope := range []string{"main", "feature/ü", "main-01234567"} {
				if err := f.open(t, Options{Write: scope}).Add(ctx, []Entry{entry("a", scope, when)}); err != nil {
					t.Fatal(err)
				}
			}
			plant(t, f, "damaged", []byte("hello"), nil)
			s := f.open(t, Options{})
			list := func() string {
				t.Helper()
				scopes, err := s.Scopes(ctx)
				if err != nil {
					t.Fatal(err)
				}
				var out []string
				for _, c := range scopes {
					out = append(out, fmt.Sprintf("%s:%d:%d:%v", c.Name, len(c.Entries), c.Bytes, c.Problem != ""))
				}
				return strings.Join(out, " ")
			}
			if got, want := list(), "damaged:0:0:true feature/ü:1:100:false main:1:100:false main-01234567:1:100:false"; got != want {
				t.Errorf("scopes %s, want %s", got, want)
			}
			if deleted, err := s.RemoveScope(ctx, Scope{Name: "feature/ü"}); err != nil || deleted != deletes {
				t.Errorf("RemoveScope = %v, %v", deleted, err)
			}
			want := "damaged:0:0:true main:1:100:false main-01234567:1:100:false"
			if !deletes {
				want = "damaged:0:0:true feature/ü:0:0:false main:1:100:false main-01234567:1:100:false"
			}
			if got := list(); got != want {
				t.Errorf("after removal: %s, want %s", got, want)
			}
		}
	})
}

// TestTagPages: a listing that comes in pages is followed, on the same host only.
func TestTagPages(t *testing.T) {
	f := newFake()
	f.fail = func(_ int, r *http.Request, _ []byte) (*http.Response, error) {
		if r.URL.Host != host {
			t.Errorf("%s was asked", r.URL.Host)
		}
		resp := answer(r, http.StatusOK, `{"tags":["b"]}`)
		if r.URL.Query().Get("last") == "" {
			resp = answer(r, http.StatusOK, `{"tags":["a"]}`)
			resp.Header.Set("Link", `<https://elsewhere.test/v2/team/app/tags/list?last=a&n=1>; rel="next"`)
		}
		return resp, nil
	}
	if tags, err := f.open(t, Options{}).tags(t.Context()); err != nil || fmt.Sprint(tags) != "[a b]" {
		t.Errorf("tags = %v, %v", tags, err)
	}
}

func TestTagOf(t *testing.T) {
	for scope, want := range map[string]string{
		"branch-main":   "optbuild-cache-branch-main",
		"feature/x":     "optbuild-cache-feature-x-217d2bf5",
		"main-0123abcd": "optbuild-cache-main-0123abcd-",
		"a.b_c-D9":      "optbuild-cache-a.b_c-D9",
		"main.held":     "optbuild-cache-main.held-",
		"main.held12":   "optbuild-cache-main.held12-",
		"ü":             "optbuild-cache---",
		"":              "optbuild-cache-",
	} {
		if got := tagOf(scope); !strings.HasPrefix(got, want) {
			t.Errorf("tagOf(%q) = %q, want %q…", scope, got, want)
		}
	}
	if n := len(tagOf(strings.Repeat("x/", 1000))); n > 128 {
		t.Errorf("a tag has %d characters", n)
	}
}

// Of entries that replace each other the newest stay.
func TestBoundsPerKey(t *testing.T) {
	var all []Entry
	for i := range 5 {
		at := when.Add(time.Duration(i) * time.Minute)
		all = append(all, entry("mount", "a", at, layer(fmt.Sprint("a", i), 10)), entry("mount", "b", at, layer(fmt.Sprint("b", i), 10)), entry("solver", "a", at, layer(fmt.Sprint("c", i), 10)))
	}
	count := map[string]int{}
	for _, e := range (Bounds{PerKey: map[string]int{"mount": 2}}).apply(identify(all), when.Add(time.Hour)) {
		count[e.Kind+" "+e.Key]++
		if e.Kind == "mount" && e.Created.Before(when.Add(3*time.Minute)) {
			t.Errorf("%s %s of %s stays", e.Kind, e.Key, e.Created)
		}
	}
	if got := fmt.Sprint(count); got != "map[mount a:2 mount b:2 solver a:5]" {
		t.Error(got)
	}
}
