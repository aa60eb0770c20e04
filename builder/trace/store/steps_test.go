package store

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestChanges(t *testing.T) {
	long := strings.Repeat("x", 1000)
	was := []Field{{"args", "npm ci"}, {"env PATH", "/bin"}, {"arg VERSION", "1"}, {"user", "root"}, {"workdir", "/app"}, {"base", "a"},
		{"layer 2 (COPY . .)", "b"}, {"mount cache /root/.npm", "c"}, {"arg LONG", long}}
	set := func(name, value string) []Field {
		is := slices.Clone(was)
		for i := range is {
			if is[i].Name == name {
				is[i].Value = value
			}
		}
		return is
	}
	for _, test := range []struct {
		name string
		is   []Field
		want []string
	}{
		{"nothing", was, nil},
		{"command", set("args", "npm i"), []string{"command changed"}},
		{"environment", set("env PATH", ""), []string{"environment variable PATH changed"}},
		{"build arg", set("arg VERSION", "2"), []string{"build arg VERSION changed"}},
		{"user", set("user", "app"), []string{"user changed"}},
		{"directory", set("workdir", "/"), []string{"working directory changed"}},
		{"base", set("base", "b"), []string{"base image changed"}},
		{"layer", set("layer 2 (COPY . .)", "c"), []string{"layer 2 (COPY . .) changed"}},
		{"mount", set("mount cache /root/.npm", "d"), []string{"mount cache /root/.npm changed"}},
		{"long", set("arg LONG", long+"x"), []string{"build arg LONG changed"}},
		{"new", append(slices.Clone(was), Field{"env A", ""}), []string{"environment variable A is new"}},
		{"gone", was[1:], []string{"command is gone"}},
		{"order", append(slices.Clone(was[1:]), was[0]), nil},
		{"two", append(set("user", "app"), Field{"arg B", ""}), []string{"user changed", "build arg B is new"}},
		{"twice", append(slices.Clone(was), Field{"user", "root"}), []string{"user is new"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGround(t)
			g.must(g.SetLast(weak(1), StepRecord{Name: "RUN npm ci", Time: time.Now(), Fields: was}))
			before, ok := g.Last(weak(1))
			if !ok {
				t.Fatal("not recorded")
			}
			if got := Changes(*before, StepRecord{Fields: test.is}); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	if got := Changes(StepRecord{}, StepRecord{Fields: was}); !slices.Equal(got, []string{"first build"}) {
		t.Errorf("got %q", got)
	}
}

func TestLast(t *testing.T) {
	g := newGround(t)
	if r, ok := g.Last(weak(1)); ok {
		t.Error(r)
	}
	want := StepRecord{Name: "RUN make", Time: time.Now().UTC().Round(0), Fields: []Field{{"args", "make"}}}
	g.must(g.SetLast(weak(1), want))
	g.open()
	if got, ok := g.Last(weak(1)); !ok || !reflect.DeepEqual(*got, want) {
		t.Errorf("%+v, %v", got, ok)
	}
	if r, ok := g.Last(weak(2)); ok {
		t.Error(r)
	}
	g.must(os.WriteFile(g.slotPath("steps", weak(1)), []byte("{"), 0o600))
	if r, ok := g.Last(weak(1)); ok {
		t.Error(r)
	}
}

// TestManySteps keeps the newest.
func TestManySteps(t *testing.T) {
	g := newGround(t)
	dir := filepath.Join(g.dir, "steps")
	for n := range 10 {
		path := g.slotPath("steps", weak(byte(n)))
		g.must(os.WriteFile(path, []byte("{}"), 0o600))
		when := time.Now().Add(time.Duration(n-20) * time.Hour)
		g.must(os.Chtimes(path, when, when))
	}
	g.must(keepNewest(dir, 3))
	for n := range 10 {
		if _, ok := g.Last(weak(byte(n))); ok != (n >= 7) {
			t.Errorf("step %d: %v", n, ok)
		}
	}
}

func TestSkip(t *testing.T) {
	g := newGround(t)
	left := func() (n int) {
		for g.Skip(weak(1)) {
			n++
		}
		return n
	}
	if n := left(); n != 0 {
		t.Error(n)
	}
	g.must(g.SetSkip(weak(1), 3))
	g.must(g.SetSkip(weak(2), 1))
	g.open()
	if n := left(); n != 3 {
		t.Error(n)
	}
	g.must(g.SetSkip(weak(1), 5))
	g.must(g.SetSkip(weak(1), 0))
	if n := left(); n != 0 {
		t.Error(n)
	}
	if !g.Skip(weak(2)) || g.Skip(weak(2)) {
		t.Error("another step's count changed")
	}
	for _, odd := range []string{"", "x", "-1", "99999999999999999999"} {
		g.must(os.WriteFile(g.slotPath("skips", weak(1)), []byte(odd), 0o600))
		if g.Skip(weak(1)) {
			t.Errorf("%q skips", odd)
		}
	}
}
