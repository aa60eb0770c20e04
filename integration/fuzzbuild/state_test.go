package fuzzbuild

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"
)

// TestPut undoes mutations: whatever one did, the context is what it was, time stamps included.
func TestPut(t *testing.T) {
	all, err := Projects()
	if err != nil {
		t.Fatal(err)
	}
	some := []string{"links", "user"} // a whole round takes ten seconds
	all = slices.DeleteFunc(all, func(p *Project) bool { return !slices.Contains(some, p.Name) })
	for _, p := range append(all, Generate(3)) {
		dir, err := p.Write(t.TempDir())
		if err != nil {
			t.Fatalf("%s: %v", p.Name, err)
		}
		pristine, err := Take(dir)
		if err != nil {
			t.Fatal(err)
		}
		mutations := Mutations(p, pristine, 1)
		if len(mutations) < 20 {
			t.Errorf("%s: %d mutations", p.Name, len(mutations))
		}
		for _, m := range mutations {
			if err := m.Apply(p, dir); err != nil {
				t.Fatalf("%s: %v", p.Name, err)
			}
			now, err := Take(dir)
			if err != nil {
				t.Fatal(err)
			}
			if now.Key(true) == pristine.Key(true) {
				t.Errorf("%s: %s changes nothing", p.Name, m)
			}
			if err := pristine.Put(dir); err != nil {
				t.Fatalf("%s: undo %s: %v", p.Name, m, err)
			}
			if now, err = Take(dir); err != nil {
				t.Fatal(err)
			}
			if now.Key(true) != pristine.Key(true) {
				t.Fatalf("%s: %s is not undone", p.Name, m)
			}
		}
	}
}

func TestGenerateIsRepeatable(t *testing.T) {
	for seed := range uint64(50) {
		a, b := Generate(seed), Generate(seed)
		if !reflect.DeepEqual(a.Case, b.Case) {
			t.Errorf("seed %d makes two projects", seed)
		}
	}
}

func TestSameSize(t *testing.T) {
	for _, content := range []string{"", "a", "9", "x1\n", "\n\n", "ABC", "~"} {
		got := sameSize(content)
		if content != "" && len(got) != len(content) || got == content {
			t.Errorf("sameSize(%q) is %q", content, got)
		}
		if got := grown(content); len(got) <= len(content) {
			t.Errorf("grown(%q) is %q", content, got)
		}
	}
}

func TestUnchanged(t *testing.T) {
	dir := File{Mode: fs.ModeDir | 0o755}
	a := State{".": dir, "f": {Content: "1"}, "d": dir, "d/g": {Content: "2"}, "e": dir}
	b := maps.Clone(a)
	b["f"] = File{Content: "other"}
	b["d"] = File{Mode: fs.ModeDir | 0o700}
	for _, c := range []struct {
		dockerfile string
		want       []string
	}{
		{"COPY . .\n", nil},
		{"COPY d /x\n", []string{"d"}},
		{"COPY --link d f /x\n", nil},
		{"COPY [de] /x/\n", []string{"d", "e"}},
		{"COPY --from=x d /x\nRUN true\n", nil},
	} {
		if got := slices.Sorted(maps.Keys(unchanged(c.dockerfile, a, b))); !slices.Equal(got, c.want) {
			t.Errorf("%q: got %q, want %q", c.dockerfile, got, c.want)
		}
	}
}

func TestSetTimeOfLink(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("nowhere", link); err != nil {
		t.Fatal(err)
	}
	want := time.Unix(1000, 0)
	if err := setTime(link, want); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Lstat(link)
	if err != nil || !fi.ModTime().Equal(want) {
		t.Errorf("got %v, %v", fi.ModTime(), err)
	}
}
