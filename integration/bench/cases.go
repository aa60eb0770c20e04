package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// side is one of the two that are compared.
type side struct {
	// ready runs before each timed run; may be nil.
	ready func() error
	// command is what is timed. Its processes are watched for their memory, together with also.
	command func() *exec.Cmd
	also    func() []int
	check   func() error       // is an error if the run was not the one to time; may be nil
	printed func([]byte) error // reads what the command has printed; may be nil
}

// one is a case: optbuild's side, and stock's if there is one to compare with.
type one struct {
	name string
	// scenario and workload are what people select by: S0 to S10, W1 to W6; "" if it is none of them.
	scenario, workload string
	ours, stock        side
	noStock            bool
	against            string                      // what stock's side is, if it is not stock BuildKit
	prepare            func(context.Context) error // makes what only this case needs; may be nil. A skipped error is a reason not to run it
	// inside, if it is set, is measured in place of ours: something that takes less than a command does.
	inside      func(context.Context) (time.Duration, error)
	processor   bool    // measure processor time, of the command and all of its descendants
	bound       float64 // of the ratio of times; without stock, of milliseconds
	memory      bool    // measure peak memory, too
	memoryBound float64
	long        bool  // runs a third as often
	asked       bool  // runs only if -run has its name
	matrix      *cell // of which the case is one; nil
	// rows, if it is set, measures by itself, after prepare.
	rows func(ctx context.Context, runs int) ([]Result, error)
}

// cases is the table. Names are kept: results are compared over time.
func cases(ctx context.Context, b *bench) ([]*one, error) {
	root := filepath.Join(b.Dir, "optbuild")
	app, err := b.copyApp("app")
	if err != nil {
		return nil, err
	}
	list := []*one{
		{
			name: "help", scenario: "S0", noStock: true, bound: 15,
			ours: side{command: func() *exec.Cmd { return exec.Command(b.Optbuild, "--help") }},
		},
		{
			name: "version", scenario: "S0", against: "buildctl",
			ours:  side{command: func() *exec.Cmd { return exec.Command(b.Optbuild, "--version") }},
			stock: side{command: func() *exec.Cmd { return b.buildctl("--version") }},
		},
		b.build("cold", app, root, "", func(c *one) {
			c.scenario = "S1"
			c.bound, c.memory, c.memoryBound, c.long = 1, true, 1.2, true
			c.ours.ready = func() error { return b.discard(ctx, root) }
			c.stock.ready = func() error { return b.emptyDaemon(ctx) }
		}),
		b.build("no-op", app, root, "", func(c *one) { c.scenario, c.bound = "S2", 1 }),
		b.build("one changed file", app, root, "", func(c *one) {
			edit := func() error {
				return os.WriteFile(filepath.Join(app, "bench.txt"), []byte(b.next("edit ")), 0o644)
			}
			c.scenario, c.ours.ready, c.stock.ready, c.long = "S3", edit, edit, true
		}),
	}
	if b.User != "" {
		home := filepath.Join(b.Dir, "rootless")
		list = append(list, b.build("no-op, rootless", app, home, b.User, func(c *one) {
			c.scenario, c.bound = "S2", 1.3
			c.ours.ready = func() error {
				if _, err := os.Stat(home); err == nil {
					return nil
				}
				// The state directory is made here because its parent belongs to root.
				return execute(exec.Command("install", "-d", "-o", b.User, "-m", "700", home))
			}
		}))
	}
	// Cold runners come last: they start a daemon of their own, which stays.
	return slices.Concat(list, b.matrixCases(), b.platformsCases(), []*one{b.parallelCase(), b.growthCase()},
		b.replayCases(), b.exportCases(), []*one{b.unchangedCase(), b.largeCase()}, b.pairCases(), placed(b.coldCases())), nil
}

// placed says which scenario and workload cold runners are about.
func placed(list []*one) []*one {
	for _, c := range list {
		c.scenario = "S4"
		if strings.Contains(c.name, "-manifest-") {
			c.scenario = "S5"
		}
		c.workload = map[string]string{"npm": "W1", "apt": "W2", "go": "W3"}[c.name[strings.LastIndexByte(c.name, '-')+1:]]
	}
	return list
}

// build is a case that builds the app with both and pushes it.
func (b *bench) build(name, app, root, user string, adjust func(*one)) *one {
	c := &one{
		name: name,
		ours: side{command: func() *exec.Cmd {
			return b.optbuildAs(user, root, "build", "--progress=plain", "--push", "-t", b.registry+"/app:ours", app)
		}},
		stock: side{
			command: func() *exec.Cmd {
				return b.buildctl("build", "--progress=plain", "--frontend=dockerfile.v0", "--local=context="+app, "--local=dockerfile="+app,
					"--output=type=image,push=true,name="+b.registry+"/app:stock")
			},
			also: func() []int { return []int{b.daemon.Process.Pid} },
		},
	}
	adjust(c)
	return c
}

// copyApp copies the app to where its files may be edited; its Dockerfile says REGISTRY where the base image comes from.
func (b *bench) copyApp(as string) (string, error) {
	dir := filepath.Join(b.Dir, as)
	if err := os.CopyFS(dir, os.DirFS(b.App)); err != nil {
		return "", err
	}
	file := filepath.Join(dir, "Dockerfile")
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	return dir, os.WriteFile(file, bytes.ReplaceAll(text, []byte("REGISTRY"), []byte(b.registry)), 0o644)
}

// timed measures a side once. daemon is buildkitd, which is no part of it.
func (c *one) timed(ctx context.Context, s side, daemon int) (took time.Duration, peak int64, err error) {
	if c.inside != nil {
		took, err = c.inside(ctx)
		return took, 0, err
	}
	took, used, peak, err := timed(s, c.memory)
	if c.processor && err == nil {
		took, err = orphansTime(daemon)
		took += used
	}
	return took, peak, err
}

// measure runs a case, both sides in turn, after one run of each that does not count.
func (b *bench) measure(ctx context.Context, c *one) ([]Result, error) {
	if c.prepare != nil {
		if err := c.prepare(ctx); err != nil {
			return nil, err
		}
	}
	if c.rows != nil {
		return c.rows(ctx, b.Runs)
	}
	runs := b.Runs
	if c.long {
		runs = max(3, runs/3)
	}
	var times, peaks [2][]float64
	for i := -1; i < runs; i++ {
		order := []int{0, 1}
		if i%2 == 0 {
			slices.Reverse(order)
		}
		for _, k := range order {
			s := []side{c.ours, c.stock}[k]
			if k == 1 && c.noStock {
				continue
			}
			if i < 0 && c.name == "cold" { // a cold run needs no other before it
				continue
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if s.ready != nil {
				if err := s.ready(); err != nil {
					return nil, err
				}
			}
			t, peak, err := c.timed(ctx, s, b.daemon.Process.Pid)
			if err != nil {
				return nil, err
			}
			if s.check != nil {
				if err := s.check(); err != nil {
					return nil, err
				}
			}
			if i >= 0 {
				times[k] = append(times[k], float64(t)/float64(time.Millisecond))
				peaks[k] = append(peaks[k], float64(peak)/(1<<20))
			}
		}
	}
	unit := "ms"
	if c.processor {
		unit = "ms of CPU"
	}
	out := []Result{summarise(c.name, unit, times[0], times[1], c.bound)}
	out[0].Against = c.against
	if c.memory {
		out = append(out, summarise(c.name+", peak memory", "MiB", peaks[0], peaks[1], c.memoryBound))
	}
	return out, nil
}

// timed runs a side's command and returns how long it took, the processor time of it and of those descendants that it waited for, and, if asked
// for, the peak memory of its processes in bytes.
func timed(s side, memory bool) (took, used time.Duration, peakBytes int64, err error) {
	c := s.command()
	out, err := os.CreateTemp("", "bench-*.log")
	if err != nil {
		return 0, 0, 0, err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	c.Stdout, c.Stderr = out, out
	begin := time.Now()
	if err := c.Start(); err != nil {
		return 0, 0, 0, err
	}
	var peak <-chan int64
	done := make(chan struct{})
	if memory {
		pids := []int{c.Process.Pid}
		if s.also != nil {
			pids = append(pids, s.also()...)
		}
		peak = watchMemory(pids, done, ownProcess)
	}
	err = c.Wait()
	took = time.Since(begin)
	close(done)
	if err != nil {
		log, _ := os.ReadFile(out.Name())
		return 0, 0, 0, fmt.Errorf("%s: %w\n%s", filepath.Base(c.Path), err, log)
	}
	used = c.ProcessState.UserTime() + c.ProcessState.SystemTime()
	if peak != nil {
		peakBytes = <-peak
	}
	if s.printed != nil {
		log, err := os.ReadFile(out.Name())
		if err == nil {
			err = s.printed(log)
		}
		if err != nil {
			return 0, 0, 0, err
		}
	}
	return took, used, peakBytes, nil
}
