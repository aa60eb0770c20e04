package fuzzbuild

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Runners is a campaign of two machines that build in turn over one shared cache.
type Runners struct {
	Campaign
	// Registry is where the caches are, one of each project, and where images go.
	Registry string
	// Builds is how often each project is built.
	Builds int
}

// Far is what was counted of builds that began with nothing but a shared cache.
type Far struct {
	Builds   int
	Replayed int // RUN steps
	Cached   int // and those that BuildKit's own cache had
	// Of builds that push their image: those that made a COPY and did not fetch the base image for it, and those that left layers of the image where they are.
	Pushed, Baseless, Unfetched int
}

func (f *Far) add(o Far) {
	f.Builds += o.Builds
	f.Replayed += o.Replayed
	f.Cached += o.Cached
	f.Pushed += o.Pushed
	f.Baseless += o.Baseless
	f.Unfetched += o.Unfetched
}

func (f Far) String() string {
	return fmt.Sprintf("%d builds from nothing but the shared cache: RUN steps: %d replayed, %d cached; %d of the images were pushed, %d with layers that were not fetched, %d after a COPY without the base image",
		f.Builds, f.Replayed, f.Cached, f.Pushed, f.Unfetched, f.Baseless)
}

// RunRunners changes each project again and again and builds it, now on one machine, now on the other. Most often the machine is new: its state directory is empty, its checkout has the time
// stamps of now. Every build is compared.
func (r *Rig) RunRunners(ctx context.Context, s Runners) (*Report, error) {
	return r.each(ctx, s.Campaign, func(ctx context.Context, p *Project, row *Row) error {
		q, err := r.newSequence(p, row, s.Seed)
		if err != nil {
			return err
		}
		defer q.remove()
		for n := range s.Builds {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := q.runner(ctx, s.Registry, n); err != nil {
				return fmt.Errorf("%s: %w", p.Name, err)
			}
		}
		return nil
	})
}

// runner edits, builds on one of the machines, and compares.
func (q *sequence) runner(ctx context.Context, registry string, n int) error {
	o, ok := q.Product.(*Optbuild)
	if !ok {
		return fmt.Errorf("%T knows no shared caches", q.Product)
	}
	var did []string
	var err error
	switch { // or nothing: as it is, on another machine
	case n == 0:
	case q.project.Pulse != "" && q.chance(45): // what most edits are to most steps: none that they see
		q.report.Mutations++
		did = append(did, "edit "+q.project.Pulse)
		err = beat(filepath.Join(q.context, q.project.Pulse))
	case q.chance(85):
		did, err = q.edit()
	}
	if err != nil {
		return err
	}
	q.state = strings.TrimRight(q.state, "01") + fmt.Sprint(n%2)
	did = append(did, fmt.Sprintf("on machine %d", n%2))
	cold := n < 2
	if !cold && q.chance(85) {
		if err := os.RemoveAll(q.state); err != nil {
			return err
		}
		did, cold = append(did, "which is new"), true
	}
	if q.chance(60) {
		if err := checkOut(q.context); err != nil {
			return err
		}
		did = append(did, "in a fresh checkout")
	}
	h := how{args: q.flags(registry)}
	if q.chance(70) {
		h.push = fmt.Sprintf("%s/image/%s:%d", registry, strings.ToLower(q.project.Name), n)
	}
	did = append(did, h.args...)

	s, err := Take(q.context)
	if err != nil {
		return err
	}
	got, err := q.far(ctx, o, h)
	if err != nil {
		return fmt.Errorf("after %q: %w", strings.Join(did, "; "), err)
	}
	if cold {
		q.count(got, h)
	}
	q.remember(s, got)
	want, err := q.judge(ctx, strings.Join(did, "; "), s, got)
	if q.last != nil && want != nil && compare(q.last, want) != nil {
		q.report.Mattered++
	}
	q.last = want
	return err
}

func (q *sequence) far(ctx context.Context, o *Optbuild, h how) (*Outcome, error) {
	ctx, cancel := impatient(ctx)
	defer cancel()
	start := time.Now()
	defer func() { q.report.Ours += time.Since(start) }()
	return o.build(ctx, q.project, q.context, q.state, q.state+".out", h)
}

// flags are those of the cache.
func (q *sequence) flags(registry string) []string {
	cache := fmt.Sprintf("--cache=%s/cache/%s,scope=%s", registry, strings.ToLower(q.project.Name), pick(q.generator, "main", "main", "main", "branch", "other"))
	if q.chance(10) {
		cache += ",mode=ro"
	}
	flags := []string{cache}
	if q.chance(6) {
		flags = append(flags, "--no-cache")
	}
	return flags
}

// count counts what a build did that began with nothing.
func (q *sequence) count(got *Outcome, h how) {
	f := Far{Builds: 1}
	for _, s := range got.Steps {
		switch s.Outcome {
		case Replayed:
			f.Replayed++
		case Cached:
			f.Cached++
		}
	}
	if h.push != "" && got.Image != nil {
		f.Pushed = 1
		fetched := func(blob string) bool {
			found, err := filepath.Glob(filepath.Join(q.state, "cache", "*", "content", "blobs", "sha256", blob))
			return err == nil && len(found) > 0
		}
		if slices.ContainsFunc(got.Blobs, func(blob string) bool { return !fetched(blob) }) {
			f.Unfetched = 1
		}
		if got.Copied && len(got.Blobs) > 0 && !fetched(got.Blobs[0]) {
			f.Baseless = 1
		}
	}
	q.report.Far.add(f)
}

// checkOut gives all of a context the time stamps that a clone of its repository would have.
func checkOut(dir string) error {
	now := time.Now()
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return setTime(path, now)
	})
}
