package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/optbuild/optbuild/integration/oracle/cases"
	"github.com/optbuild/optbuild/integration/oracle/generate"
)

// TestGenerated compares as TestEquivalence does, with cases that are made up: GENERATED of them (300), from the seeds SEED, SEED+1, ...
// What differs is made smaller and kept in a directory that is printed; DIFFERENCES names another one. A seed is replayed with
// GENERATED=1 SEED=it.
func TestGenerated(t *testing.T) {
	number, err := strconv.Atoi(env("GENERATED", "300"))
	if err != nil {
		t.Fatal(err)
	}
	first, err := strconv.ParseUint(env("SEED", "1"), 10, 63)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	start := time.Now()
	d := &differences{dir: os.Getenv("DIFFERENCES")}
	var n tally
	seeds := make(chan uint64)
	var wg sync.WaitGroup
	for range maxParallel {
		wg.Go(func() {
			for seed := range seeds {
				if err := d.check(t.Context(), r, generate.Case(seed), &n); err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
			}
		})
	}
	for i := range uint64(number) {
		if t.Context().Err() != nil {
			break
		}
		seeds <- first + i
		if i > 0 && i%100 == 0 {
			fmt.Printf("generated: %d in %s, %s\n", i, time.Since(start).Round(time.Second), n.String())
		}
	}
	close(seeds)
	wg.Wait()
	fmt.Printf("generated from the seeds %d to %d in %s: %s\n", first, first+uint64(number)-1, time.Since(start).Round(time.Second), n.String())
	if n.failing.Load()*3 > n.cases.Load() {
		t.Errorf("stock BuildKit refuses %d of %d cases: the generator has gone astray", n.failing.Load(), n.cases.Load())
	}
	for _, f := range d.found {
		t.Error(f)
	}
	if d.found != nil {
		fmt.Println("kept:", d.dir)
	}
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// differences are those that were found.
type differences struct {
	mu    sync.Mutex
	dir   string
	found []string
}

// shrinkings bounds how often a case is tried while it is made smaller, and most how many are.
const (
	shrinkings = 80
	most       = 12
)

func (d *differences) check(ctx context.Context, r *rig, c *cases.Case, n *tally) error {
	v, err := check(ctx, r, c, n)
	if err != nil || len(v.differences) == 0 {
		return err
	}
	d.mu.Lock()
	shrink := len(d.found) < most
	d.found = append(d.found, "") // others see that there is one
	at := len(d.found) - 1
	d.mu.Unlock()
	kind := kindOf(v)
	if shrink {
		var aside tally
		c = generate.Shrink(c, shrinkings, func(smaller *cases.Case) bool {
			w, err := check(ctx, r, smaller, &aside)
			if err != nil || len(w.differences) == 0 || kindOf(w) != kind {
				return false
			}
			v = w
			return true
		})
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dir == "" {
		if d.dir, err = os.MkdirTemp("", "optbuild-differences-"); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return err
	}
	kept := *c
	kept.Listed, kept.Rewrites = true, v.rewrites
	kept.About += "\n\n" + strings.ReplaceAll("  "+strings.Join(v.differences, "\n"), "\n", "\n  ")
	d.found[at] = fmt.Sprintf("%s: %s\n%s", c.Name, v.differences[0], c.Dockerfile())
	return os.WriteFile(filepath.Join(d.dir, c.Name+".txtar"), kept.Format(), 0o644)
}

// kindOf tells differences apart while a case is made smaller: by the variant that differs, and the passes at work in it.
func kindOf(v *verdict) string {
	name, _, _ := strings.Cut(v.differences[0], ":")
	return name
}
