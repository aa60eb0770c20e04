package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// replayCases are about steps that are watched and replayed. Each makes its project when its turn comes.
func (b *bench) replayCases() []*one {
	npm, golang, apt := b.once(npmProject), b.once(goProject), b.once(aptProject)
	compile, looking := b.once(makeProject), b.once(lookingProject)
	large, small := b.once(installedProject(30_000)), b.once(installedProject(100))
	return []*one{
		// What being watched costs: processor time of everything that the command starts, the step's own work among it.
		b.watched("replay-watched npm ci", npm, 1.1),
		b.watched("replay-watched go build", golang, 1.1),
		b.watched("replay-watched apt-get install", apt, 1.1),
		b.watched("replay-watched make", compile, 1.1),
		b.watched("replay-watched grep -r", looking, 3), // 7,000 small files and nothing else: the worst there is

		// One source file changed: the naive Dockerfile against the expert's, and against itself.
		b.edited("replay-npm", npm, "by hand", 1),
		b.edited("replay-npm", npm, "stock", 0.2),
		b.edited("replay-go", golang, "by hand", 1),
		b.edited("replay-go", golang, "stock", 0.2),
		b.edited("replay-apt", apt, "by hand", 1),
		b.edited("replay-apt", apt, "stock", 0.2),
		b.edited("replay-make", compile, "stock", 1.05),
		b.edited("replay-nothing", looking, "stock", 1.05),

		b.lookup("replay-lookup of 100 observations", 100, 1),
		b.lookup("replay-lookup of 10,000 observations", 10_000, 50),
		b.materialise("replay-alias of 30,000 files", 5),
		// The same from outside: a step runs on top of what was replayed, 30,000 files or 100.
		func() *one {
			c := b.edited("replay-on-top of 30,000 files", large, "100 files", 0)
			c.stock = b.edit(small, b.replayRoot(), true)
			c.prepare = both(c.prepare, small.make)
			return c
		}(),
	}
}

// lazily is a project that is made once, when the first case that is run needs it.
type lazily struct {
	*project
	make func(context.Context) error
}

func (b *bench) once(generate func(context.Context, *bench) (*project, error)) *lazily {
	var l lazily
	var err error
	l.make = func(ctx context.Context) error {
		if l.project == nil && err == nil {
			l.project, err = generate(ctx, b)
		}
		return err
	}
	return &l
}

func both(f, g func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := f(ctx); err != nil {
			return err
		}
		return g(ctx)
	}
}

func (b *bench) replayRoot() string { return filepath.Join(b.Dir, "replay") }

// watched runs a step afresh each time, watched and not. Cache mounts are off, so that it has all of its work to do. Each time its text is another one: a step
// of which it is known that it looks at nearly everything would not be watched.
func (b *bench) watched(name string, p *lazily, bound float64) *one {
	run := func(disabled string, watched bool) side {
		file := filepath.Join(b.Dir, b.next("fresh-"))
		return side{
			ready: func() error {
				text, err := os.ReadFile(p.fresh)
				if err != nil {
					return err
				}
				return os.WriteFile(file, bytes.ReplaceAll(text, []byte("STAMP"), []byte(b.next("stamp"))), 0o644)
			},
			command: func() *exec.Cmd {
				return b.optbuildAs("", b.replayRoot(), "build", "--progress=plain", "--optimize-disable="+disabled, "-o", "type=cacheonly", "-f", file, p.dir)
			},
			check: func() error { return b.lastStep(watched) },
		}
	}
	return &one{
		name: name, prepare: p.make, against: unwatched, bound: bound, long: true, processor: true,
		ours: run("cache-mounts", true), stock: run("cache-mounts,watch-inputs", false),
	}
}

// lastStep is an error if the last step of the last build did not run, or was not watched and should have been, or the other way round.
func (b *bench) lastStep(watched bool) error {
	c := b.optbuildAs("", b.replayRoot(), "why", "--json")
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		return err
	}
	var step struct {
		Step, Outcome string
		Observed      int // names
	}
	for line := range bytes.Lines(out) {
		step.Observed = 0
		if err := json.Unmarshal(line, &step); err != nil {
			return err
		}
	}
	if step.Outcome != "executed" || watched != (step.Observed > 0) {
		return fmt.Errorf("%s was not what was to be timed (watched: %v):\n%s", step.Step, watched, out)
	}
	_, err = orphansTime(b.daemon.Process.Pid)
	return err
}

// watchedOverall is the median of what being watched costs, of steps that do more than look.
func watchedOverall(results []Result) []Result {
	var ratios []float64
	for _, r := range results {
		if r.Against == unwatched && !strings.HasSuffix(r.Case, "grep -r") {
			ratios = append(ratios, r.Ratio)
		}
	}
	if len(ratios) < 2 {
		return nil
	}
	return []Result{{Case: "replay-watched, median without grep", Unit: "of unwatched", Optbuild: median(ratios), Bound: 1.03, Runs: len(ratios),
		Spread: quantile(ratios, 0.75) - quantile(ratios, 0.25)}}
}

// unwatched is what watched steps are compared with.
const unwatched = "unwatched"

// edited builds after one source file changed: the naive Dockerfile with optbuild, and with stock either the one by hand or the naive one.
func (b *bench) edited(name string, p *lazily, against string, bound float64) *one {
	return &one{
		name: name + ", one changed file", prepare: p.make, against: against, bound: bound, long: true,
		ours: b.edit(p, b.replayRoot(), true), stock: b.edit(p, "", against != "by hand"),
	}
}

// edit is one side of edited: optbuild with a state directory, or stock without.
func (b *bench) edit(p *lazily, root string, naive bool) side {
	dockerfile := func() string {
		if naive {
			return p.naive
		}
		return p.byHand
	}
	s := side{ready: func() error { return p.change() }}
	if root != "" {
		s.command = func() *exec.Cmd {
			return b.optbuildAs("", root, "build", "--progress=plain", "--push", "-t", b.registry+"/project:ours", "-f", dockerfile(), p.dir)
		}
		return s
	}
	s.command = func() *exec.Cmd {
		file := dockerfile()
		return b.buildctl("build", "--progress=plain", "--frontend=dockerfile.v0", "--local=context="+p.dir, "--local=dockerfile="+filepath.Dir(file),
			"--opt=filename="+filepath.Base(file), "--output=type=image,push=true,name="+b.registry+"/project:stock")
	}
	return s
}
