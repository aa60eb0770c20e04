package store

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/optbuild/optbuild/builder/atomicfile"
	"github.com/optbuild/optbuild/builder/trace"
)

// ground is a store and the directory of its layers.
type ground struct {
	t    *testing.T
	dir  string
	root string // of the layers
	*Store
}

func newGround(t *testing.T) *ground {
	g := &ground{t: t, dir: filepath.Join(t.TempDir(), "store"), root: t.TempDir()}
	g.open()
	return g
}

func (g *ground) open() {
	g.t.Helper()
	s, err := Open(g.dir, func(id string) string {
		if !isID(id) {
			g.t.Errorf("asked for layer %q", id)
		}
		return filepath.Join(g.root, id)
	})
	g.must(err)
	g.Store = s
}

func (g *ground) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

func id(n int) string { return fmt.Sprintf("%032x", n) }

func weak(n byte) [32]byte { return [32]byte{n} }

// put makes a layer and stores its trace.
func (g *ground) put(key [32]byte, n int) {
	g.t.Helper()
	g.must(os.MkdirAll(filepath.Join(g.root, id(n)), 0o755))
	g.must(g.Put(&trace.Trace{Weak: key, Layer: id(n), Notes: map[string]string{"step": "RUN make"}}))
}

func (g *ground) trace(n int) string { return filepath.Join(g.root, id(n), "trace") }

// found returns the numbers of the layers that Lookup finds, and what it complains about.
func (g *ground) found(key [32]byte) (numbers []int, problems []string) {
	g.t.Helper()
	for t := range g.Lookup(key, func(message string) { problems = append(problems, message) }) {
		var n int
		_, err := fmt.Sscanf(t.Layer, "%x", &n)
		g.must(err)
		numbers = append(numbers, n)
	}
	return numbers, problems
}

// want compares what is found, and how many problems there are, first now and then again, when they are forgotten.
func (g *ground) want(key [32]byte, problems int, numbers ...int) {
	g.t.Helper()
	for _, problems := range []int{problems, 0} {
		got, complaints := g.found(key)
		if !slices.Equal(got, numbers) || len(complaints) != problems {
			g.t.Errorf("found %v with problems %q, want %v with %d", got, complaints, numbers, problems)
		}
	}
}

func TestOrder(t *testing.T) {
	g := newGround(t)
	g.want(weak(1), 0)
	g.put(weak(1), 1)
	g.put(weak(1), 2)
	g.put(weak(2), 3)
	g.want(weak(1), 0, 2, 1)
	g.want(weak(2), 0, 3)
	g.Touch(weak(1), id(1))
	g.want(weak(1), 0, 1, 2)
	g.Touch(weak(1), id(3)) // another key's
	g.Touch(weak(3), id(1))
	g.want(weak(1), 0, 1, 2)
	g.put(weak(1), 2) // again
	g.want(weak(1), 0, 2, 1)
	g.open() // another process
	g.want(weak(1), 0, 2, 1)
	for n := 10; n < 20; n++ {
		g.put(weak(1), n)
	}
	g.want(weak(1), 0, 19, 18, 17, 16, 15, 14, 13, 12)
}

func TestLookupMayStopAndTouch(t *testing.T) {
	g := newGround(t)
	g.put(weak(1), 1)
	g.put(weak(1), 2)
	g.put(weak(1), 3)
	for tr := range g.Lookup(weak(1), nil) {
		if tr.Layer == id(2) {
			g.Touch(weak(1), tr.Layer)
			break
		}
	}
	g.want(weak(1), 0, 2, 3, 1)
}

// TestGone removes layers and traces: their ids are dropped without a word.
func TestGone(t *testing.T) {
	g := newGround(t)
	g.put(weak(1), 1)
	g.put(weak(1), 2)
	g.put(weak(1), 3)
	g.must(os.RemoveAll(filepath.Join(g.root, id(2))))
	g.must(os.Remove(g.trace(3)))
	g.want(weak(1), 0, 1)
	g.must(os.RemoveAll(g.root))
	g.want(weak(1), 0)
	if err := g.Put(&trace.Trace{Weak: weak(1), Layer: id(9)}); err == nil {
		t.Error("a trace was stored without its layer")
	}
	g.want(weak(1), 0)
}

// TestAdversary changes stored traces in all the ways there are; each is dropped with one message, and no other is.
func TestAdversary(t *testing.T) {
	g := newGround(t)
	g.put(weak(1), 1)
	good, err := os.ReadFile(g.trace(1))
	g.must(err)
	bad := func(what string, b []byte) {
		t.Helper()
		g.put(weak(1), 2)
		g.put(weak(1), 1)
		g.must(os.WriteFile(g.trace(1), b, 0o600))
		if got, problems := g.found(weak(1)); !slices.Equal(got, []int{2}) || len(problems) != 1 || !strings.Contains(problems[0], id(1)) {
			t.Fatalf("%s: %v, %q", what, got, problems)
		}
		if got, problems := g.found(weak(1)); !slices.Equal(got, []int{2}) || len(problems) != 0 {
			t.Fatalf("%s, again: %v, %q", what, got, problems)
		}
	}
	for n := range good {
		bad(fmt.Sprintf("truncated to %d bytes", n), good[:n])
	}
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 0x40
		bad(fmt.Sprintf("byte %d flipped", i), b)
	}
	forged, err := (&trace.Trace{Weak: weak(1), Layer: id(1)}).Encode(bytes.Repeat([]byte{0}, keySize))
	g.must(err)
	bad("forged with another key", forged)
	bad("of another state directory", otherStore(t))

	g.put(weak(1), 1)
	g.must(os.Truncate(g.trace(1), maxTrace+1))
	g.want(weak(1), 1, 2)
	g.put(weak(1), 1)
	g.must(os.Remove(g.trace(1)))
	g.must(os.Symlink(g.trace(2), g.trace(1)))
	g.want(weak(1), 1, 2)
	g.put(weak(1), 1)
	g.must(os.Remove(g.trace(1)))
	g.must(os.Mkdir(g.trace(1), 0o755))
	g.want(weak(1), 1, 2)
	g.must(os.Remove(g.trace(1)))
	g.put(weak(1), 1)
	g.must(os.Remove(g.trace(1)))
	g.must(syscall.Mkfifo(g.trace(1), 0o600)) // who reads it waits for ever
	g.want(weak(1), 1, 2)
}

func otherStore(t *testing.T) []byte {
	g := newGround(t)
	g.put(weak(1), 1)
	b, err := os.ReadFile(g.trace(1))
	g.must(err)
	return b
}

// TestSwapped puts traces with a right seal where they don't belong.
func TestSwapped(t *testing.T) {
	g := newGround(t)
	g.put(weak(1), 1)
	g.put(weak(1), 2)
	g.must(os.Rename(g.trace(1), g.trace(1)+".tmp"))
	g.must(os.Rename(g.trace(2), g.trace(1)))
	g.must(os.Rename(g.trace(1)+".tmp", g.trace(2)))
	g.want(weak(1), 2)

	// A trace of another key: the index says that it is of this one.
	g.put(weak(2), 3)
	g.put(weak(4), 5)
	g.must(os.Rename(g.weakPath(weak(2)), g.weakPath(weak(4))))
	g.want(weak(4), 1)

	// An older trace of the same layer, from when it had another key.
	g.put(weak(5), 6)
	old, err := os.ReadFile(g.trace(6))
	g.must(err)
	g.put(weak(6), 6)
	g.must(os.WriteFile(g.trace(6), old, 0o600))
	g.want(weak(6), 1)
}

// TestIndex has index files that nobody wrote: nothing leads out of the directory of layers.
func TestIndex(t *testing.T) {
	g := newGround(t)
	g.put(weak(1), 1)
	lines := "../../../../etc/aaaaaaaaaaaaaaaa\n\n" + id(1) + "\n" + id(1) + "\n" + strings.ToUpper(id(0xabc)) + "\n\xff\n" + id(2)
	g.must(os.WriteFile(g.weakPath(weak(1)), []byte(lines), 0o600))
	g.want(weak(1), 0, 1)
	g.must(os.Remove(g.weakPath(weak(1))))
	g.must(os.Mkdir(g.weakPath(weak(1)), 0o700))
	g.want(weak(1), 0)
	g.must(g.Collect(10))
	g.put(weak(1), 1)
	g.want(weak(1), 0, 1)
}

func TestKey(t *testing.T) {
	g := newGround(t)
	path := filepath.Join(g.dir, "key")
	key, err := os.ReadFile(path)
	g.must(err)
	info, err := os.Stat(path)
	g.must(err)
	if len(key) != 32 || info.Mode().Perm() != 0o600 {
		t.Errorf("%d bytes, mode %s", len(key), info.Mode())
	}
	for what, change := range map[string]func() error{
		"gone":        func() error { return os.Remove(path) },
		"cut":         func() error { return os.Truncate(path, 31) },
		"open to all": func() error { return os.Chmod(path, 0o644) },
		"a link":      func() error { return os.Rename(path, path+"2") },
	} {
		g.put(weak(1), 1)
		before := g.key
		g.must(change())
		if what == "a link" {
			g.must(os.Symlink("key2", path))
		}
		g.open()
		if bytes.Equal(g.key, before) || len(g.key) != keySize {
			t.Errorf("%s: the key is not a new one", what)
		}
		g.want(weak(1), 0) // forgotten, without a word for each
	}
	g.put(weak(1), 1)
	g.open()
	g.want(weak(1), 0, 1)
}

func TestCollect(t *testing.T) {
	g := newGround(t)
	for n := range 6 {
		g.put(weak(byte(n)), n)
		when := time.Now().Add(time.Duration(n-10) * time.Hour)
		g.must(os.Chtimes(g.weakPath(weak(byte(n))), when, when))
	}
	g.Touch(weak(0), id(0)) // the oldest is used again
	g.must(os.RemoveAll(filepath.Join(g.root, id(4))))
	left := filepath.Join(g.dir, "steps", atomicfile.Temporary+"1")
	g.must(os.WriteFile(left, nil, 0o600))
	g.must(g.Collect(3))
	if _, err := os.Stat(left); err == nil {
		t.Error("what a killed process was writing is still there")
	}
	for n := range 6 {
		_, err := os.Stat(g.weakPath(weak(byte(n))))
		if want := n == 0 || n == 3 || n == 5; (err == nil) != want {
			t.Errorf("key %d: %v", n, err)
		}
	}
	g.must(g.Collect(0)) // too soon
	g.want(weak(5), 0, 5)
	longAgo := time.Now().Add(-2 * collectEvery)
	g.must(os.Chtimes(filepath.Join(g.dir, "collected"), longAgo, longAgo))
	g.must(g.Collect(0))
	g.want(weak(5), 0)
}

// TestConcurrent is for the race detector, and ends with an index that is whole.
func TestConcurrent(t *testing.T) {
	g := newGround(t)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for n := range 25 {
				layer := worker*100 + n
				if err := os.MkdirAll(filepath.Join(g.root, id(layer)), 0o755); err != nil {
					t.Error(err)
				}
				if err := g.Put(&trace.Trace{Weak: weak(1), Layer: id(layer)}); err != nil {
					t.Error(err)
				}
				for tr := range g.Lookup(weak(1), func(message string) { t.Error(message) }) {
					g.Touch(weak(1), tr.Layer)
				}
				if err := g.Collect(10); err != nil {
					t.Error(err)
				}
				_ = g.SetSkip(weak(byte(worker)), 2)
				g.Skip(weak(byte(worker)))
				_ = g.SetLast(weak(1), StepRecord{Name: "RUN make"})
				g.Last(weak(1))
			}
		})
	}
	wg.Wait()
	if got, _ := g.found(weak(1)); len(got) != maxIDs {
		t.Errorf("%d layers", len(got))
	}
}
