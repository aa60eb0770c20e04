package fuzzbuild

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/optbuild/optbuild/integration/oracle"
)

// Kind is what a difference is.
type Kind string

const (
	// Stale is an image that a build with an empty state directory does not make.
	Stale Kind = "stale"
	// ByTime is an image that a clean build makes of the same files when those that have not changed keep the time stamps that they had in an
	// earlier build. optbuild does this on purpose, as the cache of a COPY in BuildKit does when nothing else has changed.
	ByTime Kind = "by time"
	// ByCache is an image that stock BuildKit's own cache gives as well: the key of a COPY counts neither time stamps nor modes of
	// directories. It is what a clean build makes of the same files with those that they had in an earlier build.
	ByCache Kind = "by cache"
	// Wrong is an image that optbuild makes with an empty state directory as well.
	Wrong Kind = "wrong"
	// Unstable is a project whose clean builds differ.
	Unstable Kind = "unstable"
)

// Difference is a build whose image is not the clean one.
type Difference struct {
	Kind    Kind
	Project string
	Change  string // what was done to the context since the last build
	Lines   []string
	Kept    string // directory with the context, both trees and both logs
}

func (d Difference) String() string {
	lines := d.Lines[:min(len(d.Lines), 6)]
	return fmt.Sprintf("%s: %s after %q\n  %s\n  kept: %s", d.Project, d.Kind, d.Change, strings.Join(lines, "\n  "), d.Kept)
}

// patience is for one build. One that takes longer hangs.
const patience = 3 * time.Minute

// Rig is what all checks share.
type Rig struct {
	Dir      string // for state directories
	Contexts string // for contexts: on a file system on which inode numbers are used again
	Keep     string // for what differs; made when needed
	Stock    *Stock
	Product  Product
}

// checker checks one project.
type checker struct {
	*Rig
	project *Project
	context string
	state   string // directory
	fresh   int    // state directories that were used once
	clean   map[string]*Outcome
	last    *Outcome // the clean one of the last check
	history []built
	book    layerBook
	report  *Row
}

// built is an earlier build.
type built struct {
	state State
	kept  State // with the time stamps that optbuild gave to files
	// copied says that it made a COPY, and had not all of them in its cache.
	copied bool
}

// newChecker writes a project's context.
func (r *Rig) newChecker(p *Project, row *Row) (*checker, error) {
	dir, err := os.MkdirTemp(r.Dir, "p")
	if err != nil {
		return nil, err
	}
	contexts, err := os.MkdirTemp(r.Contexts, "c")
	if err != nil {
		return nil, err
	}
	c := &checker{Rig: r, project: p, state: filepath.Join(dir, "s"), clean: map[string]*Outcome{}, book: layerBook{}, report: row}
	c.context, err = p.Write(contexts)
	return c, err
}

func (c *checker) remove() {
	os.RemoveAll(filepath.Dir(c.context))
	os.RemoveAll(filepath.Dir(c.state))
}

// check builds the context as it is and compares. change says what was done to it.
func (c *checker) check(ctx context.Context, change string) error {
	s, err := Take(c.context)
	if err != nil {
		return err
	}
	got, err := c.build(ctx, c.state)
	if err != nil {
		return fmt.Errorf("%s after %q: %w", c.project.Name, change, err)
	}
	c.remember(s, got)
	want, err := c.judge(ctx, change, s, got)
	if c.last != nil && want != nil && compare(c.last, want) != nil {
		c.report.Mattered++
	}
	c.last = want
	return err
}

// remember notes that a state was built. When its COPYs were made, files that have not changed since the last ones were, and look newer, kept the times that they
// had then; else the times are those of an earlier build that had the same files.
func (c *checker) remember(s State, got *Outcome) {
	b := built{state: s, kept: s, copied: got.Copied}
	for _, earlier := range slices.Backward(c.history) {
		if earlier.copied && b.copied {
			b.kept = s.keeping(earlier.kept)
			break
		}
		if !b.copied && earlier.state.copyKey() == s.copyKey() {
			b.kept = s.with(earlier.kept, true, nil)
			break
		}
	}
	c.history = append(c.history, b)
}

// judge compares what came of the state s, which the context holds, with its clean build, and returns that.
func (c *checker) judge(ctx context.Context, change string, s State, got *Outcome) (want *Outcome, err error) {
	if want, err = c.cleanBuild(ctx, s); err != nil {
		return nil, fmt.Errorf("%s after %q: %w", c.project.Name, change, err)
	}
	c.report.count(got)
	lines := compare(want, got)
	if lines == nil {
		if want.Image != nil {
			c.report.needless(c.book.note(s["Dockerfile"].Content, want.Image, got.Steps))
		}
		return want, nil
	}
	d := Difference{Project: c.project.Name, Change: change, Lines: lines}
	if d.Kind, err = c.classify(ctx, s, got); err != nil {
		return nil, err
	}
	d.Kept, err = c.keep(d, s, want, got)
	c.report.Differences = append(c.report.Differences, d)
	return want, err
}

// build is optbuild's build.
func (c *checker) build(ctx context.Context, state string) (*Outcome, error) {
	ctx, cancel := impatient(ctx)
	defer cancel()
	start := time.Now()
	defer func() { c.report.Ours += time.Since(start) }()
	return c.Product.Build(ctx, c.project, c.context, state)
}

// cleanBuild is stock's build without a cache; of a context that was built clean before, that one.
func (c *checker) cleanBuild(ctx context.Context, s State) (*Outcome, error) {
	key := s.Key(true)
	if out := c.clean[key]; out != nil {
		return out, nil
	}
	out, err := c.stock(ctx)
	c.clean[key] = out
	return out, err
}

// stock is stock BuildKit's build without a cache.
func (c *checker) stock(ctx context.Context) (*Outcome, error) {
	ctx, cancel := impatient(ctx)
	defer cancel()
	start := time.Now()
	defer func() { c.report.Stock += time.Since(start) }()
	c.report.Clean++
	return c.Stock.Build(ctx, c.project, c.context)
}

// impatient ends what takes too long.
func impatient(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, patience, fmt.Errorf("a build takes longer than %s", patience))
}

// compare returns what tells got from want.
func compare(want, got *Outcome) []string {
	if want.Failed != got.Failed {
		name := func(s string) string {
			if s == "" {
				return "success"
			}
			return s
		}
		return []string{fmt.Sprintf("the build ends with %s, want %s\n%s", name(got.Failed), name(want.Failed), tail(got.Log))}
	}
	if want.Image == nil {
		return nil
	}
	return oracle.Compare(want.Image, got.Image, oracle.Rules{Residue: got.Residue})
}

func tail(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], "\n")
}

// classify says what kind of difference got is from the clean build of the state s, which the context holds.
func (c *checker) classify(ctx context.Context, s State, got *Outcome) (Kind, error) {
	want := c.clean[s.Key(true)]
	again, err := c.stock(ctx)
	if err != nil {
		return "", err
	}
	if compare(want, again) != nil {
		return Unstable, nil
	}
	c.fresh++
	empty, err := c.build(ctx, fmt.Sprintf("%s-fresh-%d", c.state, c.fresh))
	if err != nil {
		return "", err
	}
	if compare(want, empty) != nil {
		return Wrong, nil
	}
	dockerfile := s["Dockerfile"].Content
	tried := map[string]bool{s.Key(true): true}
	earlier := c.history[:len(c.history)-1]
	candidates := []State{c.history[len(earlier)].kept}
	for _, b := range slices.Backward(earlier) {
		dirs := unchanged(dockerfile, s, b.state)
		candidates = append(candidates, s.with(b.state, true, dirs), s.with(b.state, false, dirs), s.with(b.state, true, nil), s.with(b.kept, true, nil))
	}
	for _, other := range candidates {
		if tried[other.Key(true)] || len(tried) > 12 {
			continue
		}
		tried[other.Key(true)] = true
		out, err := c.cleanBuildOf(ctx, s, other)
		if err != nil {
			return "", err
		}
		if compare(out, got) == nil {
			if s.Key(false) == other.Key(false) {
				return ByTime, nil
			}
			return ByCache, nil
		}
	}
	return Stale, nil
}

// cleanBuildOf is the clean build of another context than the one that there is, s.
func (c *checker) cleanBuildOf(ctx context.Context, s, other State) (*Outcome, error) {
	if err := other.Put(c.context); err != nil {
		return nil, err
	}
	out, err := c.cleanBuild(ctx, other)
	return out, errors.Join(err, s.Put(c.context))
}

// keep saves what a person needs to look into a difference.
func (c *checker) keep(d Difference, s State, want, got *Outcome) (string, error) {
	if err := os.MkdirAll(c.Keep, 0o755); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(c.Keep, c.project.Name+"-")
	if err != nil {
		return "", err
	}
	if out, err := exec.Command("cp", "-a", c.context, filepath.Join(dir, "context")).CombinedOutput(); err != nil {
		return dir, fmt.Errorf("keep the context: %w: %s", err, out)
	}
	var about strings.Builder
	fmt.Fprintf(&about, "%s: %s\nafter: %s\n\n%s\n\n", d.Project, d.Kind, d.Change, strings.Join(d.Lines, "\n"))
	for _, step := range got.Steps {
		fmt.Fprintf(&about, "%s: %s %s\n", step.Outcome, step.Name, step.Reason)
	}
	if len(c.history) > 1 {
		fmt.Fprintf(&about, "\nthe build before had these files:\n")
		before := c.history[len(c.history)-2].state
		for _, p := range slices.Sorted(maps.Keys(before)) {
			f := before[p]
			changed := ""
			if now, ok := s[p]; !ok || now.Content != f.Content || now.Mode != f.Mode {
				changed = fmt.Sprintf(" %.200q", f.Content)
			}
			fmt.Fprintf(&about, "  %v %v %s%s\n", f.Mode, f.Time.Format(time.RFC3339Nano), p, changed)
		}
	}
	files := map[string]string{"about.txt": about.String(), "want.tree": tree(want), "got.tree": tree(got), "want.log": want.Log, "got.log": got.Log}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return dir, err
		}
	}
	return dir, nil
}

// tree lists an image.
func tree(o *Outcome) string {
	if o.Image == nil {
		return "failed: " + o.Failed + "\n"
	}
	var b strings.Builder
	for _, p := range slices.Sorted(maps.Keys(o.Image.Tree)) {
		fmt.Fprintf(&b, "%s: %s\n", p, o.Image.Tree[p])
	}
	return b.String() + string(o.Image.Config) + "\n"
}
