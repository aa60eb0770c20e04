package integration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/optbuild/optbuild/integration/oracle"
	"github.com/optbuild/optbuild/integration/oracle/cases"
)

const corpusDir = "testdata/corpus"

// TestEquivalence builds each Dockerfile of the corpus with stock BuildKit's frontend and with ours: off, with each pass alone, safe,
// all, and as `optbuild fix` writes it; and wants the same image, as far as the rewrites promise. Where a case changes its context,
// it is built again, so that a stale cache is seen. EQUIVALENCE=case,case limits it, UPDATE=1 writes which passes rewrite a case.
func TestEquivalence(t *testing.T) {
	r := newRig(t)
	files, err := filepath.Glob(filepath.Join(corpusDir, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases (%v)", err)
	}
	only := strings.Split(os.Getenv("EQUIVALENCE"), ",")
	var n tally
	t.Run("case", func(t *testing.T) {
		for _, file := range files {
			name := strings.TrimSuffix(filepath.Base(file), ".txtar")
			if only[0] != "" && !slices.Contains(only, name) {
				continue
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				c, err := cases.Load(file)
				if err != nil {
					t.Fatal(err)
				}
				if !c.Listed {
					t.Fatal("the case does not say which passes rewrite it")
				}
				res, err := check(t.Context(), r, c, &n)
				if err != nil {
					t.Fatal(err)
				}
				if res.failed != c.Fails && (c.Fails == "" || !strings.Contains(res.failed, c.Fails)) {
					t.Errorf("stock BuildKit says %q, want %q", res.failed, c.Fails)
				}
				for _, d := range res.differences {
					t.Error(d)
				}
				for _, p := range res.rewrites {
					if slices.Contains(c.Never, p) {
						t.Errorf("rewritten by %s, and must not be\n%s", p, res.remarks)
					}
				}
				if !slices.Equal(res.rewrites, c.Rewrites) {
					got := *c
					got.Rewrites = res.rewrites
					if os.Getenv("UPDATE") != "" && !t.Failed() {
						if err := os.WriteFile(file, got.Format(), 0o644); err != nil {
							t.Fatal(err)
						}
						return
					}
					t.Errorf("rewritten by %s, want %s\n%s", got.Rewrite(), c.Rewrite(), res.remarks)
				}
			})
		}
	})
	fmt.Println("equivalence:", n.String())
}

// tally counts what was done.
type tally struct{ cases, failing, rewritten, variants, same, builds atomic.Int64 }

func (n *tally) String() string {
	return fmt.Sprintf("%d cases, of them %d rewritten and %d that stock BuildKit refuses; %d variants, of them %d compiled to what another did; %d builds",
		n.cases.Load(), n.rewritten.Load(), n.failing.Load(), n.variants.Load(), n.same.Load(), n.builds.Load())
}

// verdict is what came of a case.
type verdict struct {
	differences []string
	failed      string   // what stock BuildKit said when it failed
	rewrites    []string // passes that rewrote it, in builds or in the fixed file
	remarks     string   // of all passes
}

// check builds a case in every variant and compares.
func check(ctx context.Context, r *rig, c *cases.Case, n *tally) (*verdict, error) {
	j, err := newJob(r, c)
	if err != nil {
		return nil, err
	}
	defer j.remove()
	n.cases.Add(1)
	v := &verdict{}
	vs := variants()
	spaces := map[string]string{} // the namespace of each variant's cache mounts
	if err := v.round(ctx, j, vs, spaces, n); err != nil {
		return nil, err
	}
	if len(v.rewrites) > 0 {
		n.rewritten.Add(1)
	}
	if !c.HasSecond() || len(v.differences) > 0 {
		return v, nil
	}
	if err := j.next(); err != nil {
		return nil, err
	}
	vs = slices.DeleteFunc(vs, func(w variant) bool {
		return !slices.Contains([]string{stockName, "safe", "merged", "all", "fix"}, w.name)
	})
	return v, v.round(ctx, j, vs, spaces, n)
}

// round builds each variant that compiles to something new.
func (v *verdict) round(ctx context.Context, j *job, vs []variant, spaces map[string]string, n *tally) error {
	all, err := j.compile(ctx, vs)
	if err != nil {
		return err
	}
	differ := func(w variant, format string, args ...any) {
		what := w.name
		if j.second {
			what += ", second build"
		}
		v.differences = append(v.differences, fmt.Sprintf("%s: %s%s", what, fmt.Sprintf(format, args...), show(all[w.name])))
	}
	stock := all[stockName]
	if !j.second {
		seen := map[string]bool{}
		for _, w := range vs {
			if got := all[w.name]; got != nil && w.name != stockName {
				for _, p := range got.passed() {
					seen[p] = true
				}
				for _, m := range got.remarks {
					if w.name == "all" || w.name == "fix" {
						v.remarks += "  " + w.name + ": " + m.String() + "\n"
					}
				}
			}
		}
		v.rewrites = slices.Sorted(maps.Keys(seen))
	}
	type group struct {
		images map[string]*oracle.Image
		err    error
		space  string
	}
	built := map[string]*group{}
	for _, w := range vs {
		got := all[w.name]
		if got == nil {
			continue
		}
		n.variants.Add(1)
		if got.broken != "" {
			differ(w, "a pass broke it: %s", got.broken)
			continue
		}
		if (got.err != nil) != (stock.err != nil) {
			differ(w, "compiles to the error %v, want %v", got.err, stock.err)
			continue
		}
		if got.err != nil {
			v.failed = stock.err.Error()
			continue
		}
		// In a second round variants meet whose cache mounts may have been apart before.
		id := got.key
		if w.merged {
			id += " merged"
		}
		if j.second {
			id += spaces[w.name]
		}
		g := built[id]
		if g == nil {
			g = &group{space: w.name}
			if j.second {
				g.space = spaces[w.name]
			}
			built[id] = g
			g.images, g.err = j.build(ctx, w, g.space)
			n.builds.Add(1)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			var failed *buildError
			if g.err != nil && !errors.As(g.err, &failed) {
				return g.err
			}
		} else {
			n.same.Add(1)
		}
		if !j.second {
			spaces[w.name] = g.space
		}
		want := built[stock.key]
		if j.second {
			want = built[stock.key+spaces[stockName]]
		}
		if w.name == stockName && g.err != nil {
			v.failed = g.err.Error()
		}
		if g == want {
			continue
		}
		if (g.err != nil) != (want.err != nil) {
			differ(w, "ends with the error %v\nwant %v", g.err, want.err)
			continue
		}
		rules := got.rules()
		if w.merged {
			rules.Level, rules.AnyLinks = oracle.LevelFiles, true
		}
		if j.second && rules.Level == oracle.LevelImage && len(got.passed()) == 0 {
			rules.Level = oracle.LevelFiles
		}
		for _, platform := range slices.Sorted(maps.Keys(union(want.images, g.images))) {
			a, b := want.images[platform], g.images[platform]
			if a == nil || b == nil {
				differ(w, "the platform %q is only in one of the images", platform)
				continue
			}
			if diff := oracle.Compare(a, b, rules); diff != nil {
				differ(w, "%s\n%s\n", platform, strings.Join(diff, "\n"))
			}
		}
	}
	if v.failed != "" && !j.second {
		n.failing.Add(1)
	}
	return nil
}

func union[V any](a, b map[string]V) map[string]V {
	u := maps.Clone(a)
	if u == nil {
		u = map[string]V{}
	}
	maps.Copy(u, b)
	return u
}

// show is what the rewrites were that led to a difference.
func show(c *compiled) string {
	if c == nil {
		return ""
	}
	s := "\n"
	for _, m := range c.remarks {
		if m.Kind == "passed" {
			s += fmt.Sprintf("  keeps %s: %s\n", m.Keeps, m)
		}
	}
	if c.text != "" {
		s += "  --- rewritten\n" + c.text
	}
	return s
}
