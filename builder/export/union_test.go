package export

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A file that one step makes and another one changes is in the layer once; one that another step deletes is not in it, nor is a whiteout of it.
func TestUnionHasWhatIsThereInTheEnd(t *testing.T) {
	s := newStack(t)
	s.layer(func(root string) {
		write(t, root, "base", "base")
		write(t, root, "gone", "base")
	})
	s.layer(func(root string) {
		write(t, root, "made", "1")
		write(t, root, "tmp/made-and-deleted", "1")
		write(t, root, "app/x", "x")
	})
	s.layer(func(root string) {
		must(t, os.RemoveAll(filepath.Join(root, "tmp")))
		must(t, os.Remove(filepath.Join(root, "gone")))
		write(t, root, "made", "2")
		must(t, os.Chown(filepath.Join(root, "app"), 7, 7))
		must(t, os.Chown(filepath.Join(root, "app/x"), 7, 7))
	})
	got := entries(t, s.tar(s.union(2, nil, every)))
	want := []string{"app/", "app/x", ".wh.gone", "made"}
	if !slices.Equal(got, want) {
		t.Errorf("layer has %q, want %q", got, want)
	}
}

// A directory that was copied up for a file that is gone again is not in the layer; one whose mode or owner changed is.
func TestUnionLeavesDirectoriesOut(t *testing.T) {
	s := newStack(t)
	s.layer(func(root string) {
		for _, dir := range []string{"etc", "mode", "owner", "deep/in"} {
			must(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
		}
	})
	s.layer(func(root string) {
		for _, dir := range []string{"etc", "mode", "owner", "deep/in"} {
			write(t, root, dir+"/moment", "x")
			must(t, os.Remove(filepath.Join(root, dir, "moment")))
		}
		must(t, os.Chmod(filepath.Join(root, "mode"), 0o700))
		must(t, os.Chown(filepath.Join(root, "owner"), 7, 7))
		must(t, os.Mkdir(filepath.Join(root, "new"), 0o755))
	})
	if got, want := entries(t, s.tar(s.union(2, nil, every))), []string{"mode/", "new/", "owner/"}; !slices.Equal(got, want) {
		t.Errorf("layer has %q, want %q", got, want)
	}
}

// What is residue is left out, unless a layer has it that no RUN made, or something that stays is linked to it; the directory goes with all that is in it.
func TestUnionLeavesResidueOut(t *testing.T) {
	s := newStack(t)
	s.layer(func(root string) { // the base image
		write(t, root, "cache/base", "base")
	})
	s.layer(func(root string) { // a COPY
		write(t, root, "cache/copied", "copied")
	})
	s.layer(func(root string) { // a RUN whose layer lies below
		write(t, root, "cache/twice", "1")
	})
	s.layer(func(root string) {
		write(t, root, "cache/base", "changed")
		write(t, root, "cache/copied", "changed")
		write(t, root, "cache/twice", "2")
		write(t, root, "cache/new", "new")
		write(t, root, "cache/all/a/b", "new")
		write(t, root, "cache/linked/program", "new")
		must(t, os.Symlink("../cache/linked", filepath.Join(root, "link")))
		must(t, os.Symlink("cache/linked/program", filepath.Join(root, "direct")))
	})
	residue := func(p string) string {
		if strings.HasPrefix(p, "/cache/") {
			return "cache"
		}
		return ""
	}
	u := s.union(4, residue, func(i int) bool { return i >= 3 })
	got := entries(t, s.tar(u))
	want := []string{"cache/", "cache/base", "cache/copied", "cache/linked/", "cache/linked/program", "cache/.wh.twice", "direct", "link"}
	if !slices.Equal(got, want) {
		t.Errorf("layer has %q, want %q", got, want)
	}
	list, err := u.changes(t.Context())
	must(t, err)
	if sum := fmt.Sprint(sumUp(list)); sum != "[{cache 3 7}]" {
		t.Errorf("left out: %s", sum)
	}
}

// seeds is how many random cases there are of each kind.
var seeds = flag.Uint64("seeds", 20, "number of random `cases`")

// Random layers: the union of some gives what they give one after the other.
func TestUnionEqualsItsLayers(t *testing.T) {
	for seed := range *seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := newStack(t)
			r := rand.New(rand.NewPCG(seed, 1))
			n := 3 + r.IntN(4)
			for range n {
				s.layer(func(root string) {
					for range 1 + r.IntN(12) {
						disturb(t, r, root)
					}
				})
			}
			first := 1 + r.IntN(n)
			var each [][]byte
			for i := range s.dirs {
				each = append(each, s.step(i))
			}
			want := s.applied(each...)
			one := s.tar(s.union(first, nil, every))
			got := s.applied(append(slices.Clone(each[:first]), one)...)
			if d := differences(want, got); d != "" {
				t.Errorf("layers %d to %d as one give other files:\n%s", first, n, d)
			}
			if again := s.tar(s.union(first, nil, every)); !bytes.Equal(one, again) {
				t.Error("the same layers, another tar")
			}
		})
	}
}

// A walk ends with its context.
func TestUnionEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (&union{}).changes(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A directory that was replaced hides what it had, in directories below it, too.
func TestUnionOfAReplacedDirectory(t *testing.T) {
	s := newStack(t)
	s.layer(func(root string) { write(t, root, "d/sub/old", "old") })
	s.layer(func(root string) {
		must(t, os.RemoveAll(filepath.Join(root, "d")))
		write(t, root, "d/sub/new", "new")
	})
	got := entries(t, s.tar(s.union(2, nil, every)))
	if want := []string{"d/", "d/sub/", "d/sub/new", "d/sub/.wh.old"}; !slices.Equal(got, want) {
		t.Errorf("layer has %q, want %q", got, want)
	}
}

// A file that was copied up and is what it was is not in the layer; one that only looks so, because its time is that of an archive, is.
func TestUnionComparesContent(t *testing.T) {
	s := newStack(t)
	set := func(root, name, text string) {
		write(t, root, name, text)
		must(t, unix.Lutimes(filepath.Join(root, name), []unix.Timeval{{Sec: 1e9}, {Sec: 1e9}}))
	}
	s.layer(func(root string) {
		set(root, "equal", "one")
		set(root, "other", "one")
		write(t, root, "owned", "x")
	})
	s.layer(func(root string) {
		set(root, "equal", "one")
		set(root, "other", "two")
		must(t, os.Chown(filepath.Join(root, "owned"), 0, 0)) // as it was
	})
	got := entries(t, s.tar(s.union(2, nil, every)))
	if want := []string{"other"}; !slices.Equal(got, want) {
		t.Errorf("layer has %q, want %q", got, want)
	}
}

// What was left out is counted once a file, and only if no name of it stays. A directory of residue that a lower RUN made keeps its new mode.
func TestSumUp(t *testing.T) {
	s := newStack(t)
	s.layer(func(root string) { write(t, root, "cache/below/x", "x") })
	s.layer(func(root string) {
		write(t, root, "cache/a", "12345")
		write(t, root, "cache/linked", "123")
		must(t, os.Link(filepath.Join(root, "cache/a"), filepath.Join(root, "cache/b")))
		must(t, os.Link(filepath.Join(root, "cache/linked"), filepath.Join(root, "stays")))
		must(t, os.Chmod(filepath.Join(root, "cache/below"), 0o700))
	})
	u := s.union(2, func(p string) string {
		if strings.HasPrefix(p, "/cache/") {
			return "cache"
		}
		return ""
	}, every)
	list, err := u.changes(t.Context())
	must(t, err)
	if got := fmt.Sprint(sumUp(list)); got != "[{cache 3 5}]" {
		t.Errorf("left out %s, want 3 files of 5 bytes", got)
	}
	got := entries(t, s.tar(u))
	if want := []string{"cache/", "cache/below/", "stays"}; !slices.Equal(got, want) {
		t.Errorf("layer has %q, want %q", got, want)
	}
}
