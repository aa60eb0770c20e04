package remote

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// when is the time of synctest's clock.
var when = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func TestAddAndFind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.checkBlobs = true
		ctx := t.Context()
		s := f.open(t, Options{Write: "branch-main"})
		blob, err := s.PushBytes(ctx, "application/x-test", []byte("content"))
		if err != nil {
			t.Fatal(err)
		}
		held, err := s.PushBytes(ctx, ocispecs.MediaTypeImageLayerZstd, []byte("layer"))
		if err != nil {
			t.Fatal(err)
		}
		held.Annotations = map[string]string{"containerd.io/uncompressed": "sha256:x"}
		old := Entry{Kind: "trace", Key: "k", Created: when.Add(-time.Hour), Blob: blob, Note: map[string]string{"step": "RUN make"}}
		e := Entry{Kind: "trace", Key: "k", Created: when, Blob: blob, Holds: []ocispecs.Descriptor{held}}
		if err := s.Add(ctx, []Entry{old, e}); err != nil {
			t.Fatal(err)
		}

		before := f.count()
		x, err := f.open(t, Options{Read: []string{"branch-main"}}).Load(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.since(before); len(got) != 2 {
			t.Errorf("reading the index took %d requests, want 2: %v", len(got), got)
		}
		e.Scope, old.Scope = "branch-main", "branch-main"
		if got, want := x.Find("trace", "k"), []Entry{e, old}; !reflect.DeepEqual(got, want) {
			t.Errorf("found\n%+v, want\n%+v", got, want)
		}
		if got := x.Find("trace", "other"); got != nil {
			t.Errorf("found under another key: %v", got)
		}
		b, err := s.Fetch(ctx, x.Find("trace", "k")[0].Blob, 100)
		if string(b) != "content" || err != nil {
			t.Errorf("Fetch = %q, %v", b, err)
		}
	})
}

func TestScopesAreReadInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		ctx := t.Context()
		add := func(scope string, e ...Entry) {
			t.Helper()
			if err := f.open(t, Options{Write: scope}).Add(ctx, e); err != nil {
				t.Fatal(err)
			}
		}
		same := entry("trace", "k", when, layer("same", 1))
		add("branch-main", same, entry("trace", "k", when, layer("main", 1)))
		add("branch-x", same, entry("trace", "k", when.Add(-time.Hour), layer("x", 1)))
		x, err := f.open(t, Options{Write: "branch-x", Read: []string{"branch-none", "branch-main", "branch-x"}}).Load(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range x.Find("trace", "k") {
			got = append(got, e.Scope+" "+e.Created.Format("15:04"))
		}
		if want := "branch-x 00:00, branch-x 23:00, branch-main 00:00"; strings.Join(got, ", ") != want {
			t.Errorf("found %v, want %s", got, want)
		}
	})
}

// TestUnchangedWritesNothing: a build that adds what is there must cost next to nothing.
func TestUnchangedWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		ctx := t.Context()
		if err := f.open(t, Options{Write: "main"}).Add(ctx, []Entry{entry("a", "1", when)}); err != nil {
			t.Fatal(err)
		}
		s := f.open(t, Options{Write: "main"})
		if _, err := s.Load(ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		before, began := f.count(), time.Now()
		if err := s.Add(ctx, []Entry{entry("a", "1", time.Now())}); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(f.since(before)); got != "[HEAD manifests/optbuild-cache-main]" {
			t.Errorf("requests: %s", got)
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("it waited %v", d)
		}
		// What is used does not get old.
		time.Sleep(Refresh)
		if err := s.Add(ctx, []Entry{entry("a", "1", time.Now())}); err != nil {
			t.Fatal(err)
		}
		x, err := s.Load(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if all := x.All(""); len(all) != 1 || time.Since(all[0].Created) > time.Hour {
			t.Errorf("after a day: %v", all)
		}
	})
}

func TestReadOnly(t *testing.T) {
	if err := newFake().open(t, Options{Read: []string{"main"}}).Add(t.Context(), []Entry{entry("a", "1", when)}); err != ErrReadOnly {
		t.Errorf("Add = %v, want ErrReadOnly", err)
	}
}
