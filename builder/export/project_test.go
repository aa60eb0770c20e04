package export

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The key of a unit depends on what of a lower layer the unit's layer depends on, and on nothing else of it.
func TestProject(t *testing.T) {
	s := newStack(t)
	s.layer(func(root string) { // a COPY
		write(t, root, "app/src/a", "a")
		write(t, root, "app/src/b", "b")
		write(t, root, "app/replaced/old", "old")
		write(t, root, "app/deleted", "x")
	})
	s.layer(func(root string) { // a RUN
		write(t, root, "app/out", "out")
		write(t, root, "app/src/b", "changed")
		must(t, os.RemoveAll(filepath.Join(root, "app/replaced")))
		must(t, os.Mkdir(filepath.Join(root, "app/replaced"), 0o755))
		must(t, os.Remove(filepath.Join(root, "app/deleted")))
	})
	u := &union{members: []directory{{path: s.dirs[2], made: true}}}
	lower := directory{path: s.dirs[1]}
	project := func() string {
		t.Helper()
		sum, err := u.project(lower)
		must(t, err)
		return sum
	}
	first := project()
	for _, test := range []struct {
		name   string
		change func(root string)
		counts bool
	}{
		{"a file that the RUN did not touch is edited", func(root string) { write(t, root, "app/src/a", "edited") }, false},
		{"one more beside it", func(root string) { write(t, root, "app/src/c", "c") }, false},
		{"one in a directory that the RUN has not", func(root string) { write(t, root, "other/dir/c", "c") }, false},
		{"a directory's mode", func(root string) { must(t, os.Chmod(filepath.Join(root, "app/src"), 0o700)) }, true},
		{"a file that the RUN changed is edited", func(root string) { write(t, root, "app/src/b", "longer") }, true},
		{"one more where the RUN replaced the directory", func(root string) { write(t, root, "app/replaced/new", "new") }, true},
		{"what the RUN deleted is not there", func(root string) { must(t, os.Remove(filepath.Join(root, "app/deleted"))) }, true},
		{"a file at the place of one that the RUN made", func(root string) { write(t, root, "app/out", "copied") }, true},
	} {
		before := project()
		test.change(lower.path)
		if changed := project() != before; changed != test.counts {
			t.Errorf("%s: the key changes: %t, want %t", test.name, changed, test.counts)
		}
	}
	if project() == first {
		t.Error("the key is what it was in the beginning")
	}
}

// Random layers: as long as what the key has of a lower layer is the same, so is the layer, whatever else the lower one has.
func TestProjectionSuffices(t *testing.T) {
	same, all := 0, 0
	for seed := range *seeds {
		s := newStack(t)
		r := rand.New(rand.NewPCG(seed, 2))
		for range 3 {
			s.layer(func(root string) {
				for range 1 + r.IntN(10) {
					disturb(t, r, root)
				}
			})
		}
		residue := func(p string) string {
			if strings.HasSuffix(p, "c") {
				return "c"
			}
			return ""
		}
		u := s.union(2, residue, func(i int) bool { return i >= 2 })
		lower := u.lower[0]
		sum, err := u.project(lower)
		must(t, err)
		want := s.tar(u)
		for i := range 8 {
			other := filepath.Join(s.root, fmt.Sprintf("other-%d", i))
			if out, err := exec.CommandContext(t.Context(), "cp", "-a", lower.path, other).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for range 1 + r.IntN(2) {
				disturb(t, r, other)
			}
			v := *u
			v.lower = []directory{{path: other}, u.lower[1]}
			now, err := v.project(v.lower[0])
			must(t, err)
			all++
			if now != sum {
				continue
			}
			same++
			if got := s.tar(&v); !bytes.Equal(got, want) {
				t.Errorf("seed %d, %d: another layer under the same key: %q, want %q", seed, i, entries(t, got), entries(t, want))
			}
		}
	}
	if same < all/20 {
		t.Errorf("the key was the same %d times of %d: this shows nothing", same, all)
	}
	t.Logf("the key was the same %d times of %d", same, all)
}
