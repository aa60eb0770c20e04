package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// together is how many builds begin at the same time.
const together = 20

// parallelCase is about 20 builds at once that share what is cached: of one project each, all edited since the last time. With optbuild they share a state
// directory and one engine, with stock BuildKit the daemon.
func (b *bench) parallelCase() *one {
	const name = "S9"
	c := &cell{bench: b, name: name, scenario: scenario{what: fmt.Sprintf("%d builds at once, each after an edit", together), long: true}, workload: &workload{name: name, what: "small projects"}}
	var projects []*project
	prepare := func(ctx context.Context) error {
		for i := len(projects); i < together; i++ {
			files := docs(50)
			files["main.txt"] = marked + fmt.Sprintf(" of %d\n", i)
			p, err := b.newProject(fmt.Sprintf("parallel-%d", i), files, map[string]string{
				"naive": fmt.Sprintf("FROM debian:12\nWORKDIR /app\nRUN echo %d > /number\nCOPY . .\nRUN sort docs/*/*.md | sha256sum > /sum\nRUN cat main.txt > /made\n", i)})
			if err != nil {
				return err
			}
			p.edit = "main.txt"
			projects = append(projects, p)
		}
		b.last = name
		return b.clear(ctx)
	}
	// build makes all builds at once.
	build := func(ctx context.Context, k contender, round int) (f Build, err error) {
		var commands []*exec.Cmd
		var jobs []job
		for i, p := range projects {
			if err := p.edited(); err != nil {
				return f, err
			}
			j := job{state: "parallel", dir: p.dir, file: p.naive, image: fmt.Sprintf("%s/parallel/%s:%d", b.registry, k.name, i),
				stepsLogged: filepath.Join(b.Dir, fmt.Sprintf("steps-%d.jsonl", i))}
			command, err := k.command(j)
			if err != nil {
				return f, err
			}
			commands, jobs = append(commands, command), append(jobs, j)
		}
		f, logs, err := b.observe(ctx, k.daemons(), commands...)
		if err != nil {
			return f, err
		}
		f.Side, f.Round = k.String(), round
		for i, j := range jobs {
			s, err := k.steps(j, logs[i])
			if err != nil {
				return f, err
			}
			f.Executed, f.Replayed, f.Cached = f.Executed+s.Executed, f.Replayed+s.Replayed, f.Cached+s.Cached
			c.project, c.workload.made = projects[i], "made"
			var one Build
			if err := c.look(j.image, &one, round <= 0); err != nil {
				return f, err
			}
			f.ImageBytes, f.Layers = f.ImageBytes+one.ImageBytes, f.Layers+one.Layers
		}
		return f, nil
	}
	rows := func(ctx context.Context, runs int) ([]Result, error) {
		list, err := b.contenders(ctx, []string{"naive"}, false)
		if err != nil {
			return nil, err
		}
		// One daemon for each build is not what this is about.
		list = slices.DeleteFunc(list, func(k contender) bool { return k.name == "stock-once" })
		if err := c.inTurn(ctx, list, runs, build); err != nil {
			return nil, err
		}
		return compare(name, c.builds, nil), nil
	}
	return &one{name: name, scenario: name, prepare: prepare, rows: rows, matrix: c}
}

// growthBuilds is how many builds a state directory has seen in the end.
const growthBuilds = 300

// growthCase is about what a state directory is like after very many builds: each is of an edited project. A builder is compared with itself, its last builds
// with its first ones, and so is the space that it takes.
func (b *bench) growthCase() *one {
	const name = "S10"
	var p *project
	prepare := func(ctx context.Context) (err error) {
		b.last = name
		if err := b.clear(ctx); err != nil {
			return err
		}
		files := docs(50)
		files["main.txt"] = marked + "\n"
		p, err = b.newProject("growth", files, map[string]string{
			"naive": "FROM busybox\nWORKDIR /app\nCOPY . .\nRUN cat docs/0/1.md > /one\nRUN cat main.txt > /made\n"})
		if err == nil {
			p.edit = "main.txt"
		}
		return err
	}
	rows := func(ctx context.Context, runs int) (rows []Result, err error) {
		list, err := b.contenders(ctx, []string{"naive"}, false)
		if err != nil {
			return nil, err
		}
		// The builds of which the time counts are as many as a row has runs, so that it can be compared with others: from the 3rd on, and up to the 300th.
		runs = max(1, min(runs, 20))
		for _, k := range list {
			var early, late []float64
			var small, large int64
			for i := 1; i <= growthBuilds && err == nil; i++ {
				var f Build
				if f, err = b.grow(ctx, k, p); err != nil {
					break
				}
				switch {
				case i > 2 && i <= 2+runs:
					early = append(early, f.Seconds)
				case i > growthBuilds-runs:
					late = append(late, f.Seconds)
				}
				if i == 3 {
					small, err = k.size(b)
				} else if i == growthBuilds {
					large, err = k.size(b)
				}
			}
			if err != nil {
				if ctx.Err() == nil && k.optional {
					fmt.Fprintf(os.Stderr, "  %s: left out: %v\n", k, err)
					err = nil
					continue
				}
				return nil, fmt.Errorf("%s: %w", k, err)
			}
			bound := 0.0
			if k.String() == subject {
				bound = 1.2
			}
			times := summarise(fmt.Sprintf("S10 %s, build %d", k.name, growthBuilds), "s", late, early, bound)
			space := summarise(fmt.Sprintf("S10 %s, state after %d builds", k.name, growthBuilds), "MB", []float64{float64(large) / 1e6}, []float64{float64(small) / 1e6}, 0)
			times.Against, space.Against = "build 3", "after 3"
			rows = append(rows, times, space)
			fmt.Fprintf(os.Stderr, "  %s\n  %s\n", times, space)
		}
		return rows, nil
	}
	return &one{name: name, scenario: name, prepare: prepare, rows: rows, long: true}
}

func (b *bench) grow(ctx context.Context, k contender, p *project) (Build, error) {
	if err := p.edited(); err != nil {
		return Build{}, err
	}
	c, err := k.command(job{state: "growth", dir: p.dir, file: p.naive, image: b.registry + "/growth/" + k.name + ":latest"})
	if err != nil {
		return Build{}, err
	}
	f, _, err := b.observe(ctx, k.daemons(), c)
	return f, err
}

// size is what a builder's state takes on disk.
func (k contender) size(b *bench) (int64, error) {
	switch k.name {
	case "stock":
		return diskUse(b.stockRoot())
	case "docker":
		return 0, nil // it is not the state of these builds alone
	}
	return diskUse(b.stateRoot(k.name, "growth"))
}
