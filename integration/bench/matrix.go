package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// cell is one scenario on one workload: all builders build it in turn.
type cell struct {
	*bench
	name     string
	scenario scenario
	workload *workload

	project *project
	builds  []Build
}

// contender is a builder with one of the workload's Dockerfiles.
type contender struct {
	namedPeer
	dockerfile string // naive, by-hand; "" for the floor
}

// String is what results call it: "stock/by-hand".
func (k contender) String() string {
	if k.dockerfile == "" {
		return k.name
	}
	return k.name + "/" + k.dockerfile
}

// subject is the contender that the others are compared with.
const subject = "optbuild/naive"

func (b *bench) cell(s scenario, w *workload, name string) *one {
	c := &cell{bench: b, name: name, scenario: s, workload: w}
	prepare := func(ctx context.Context) (err error) {
		if c.project, err = w.project(ctx, b); err != nil {
			return err
		}
		// Nothing of another workload is in the way, and what was measured before does not pile up in the registry.
		if b.last == w.name {
			return nil
		}
		b.last = w.name
		return b.clear(ctx)
	}
	return &one{name: name, scenario: s.name, workload: w.name, prepare: prepare, rows: c.rows, matrix: c}
}

// clear removes what builders have kept and pushed.
func (b *bench) clear(ctx context.Context) error {
	return errors.Join(b.clearStates(ctx), b.emptyRegistry(ctx))
}

// clearStates removes what builders have kept.
func (b *bench) clearStates(ctx context.Context) error {
	for _, p := range b.running {
		states, err := os.ReadDir(filepath.Join(b.Dir, "states", p.name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		for _, s := range states {
			if err := p.empty(ctx, s.Name()); err != nil {
				return err
			}
		}
	}
	// Builders that make it themselves close it to others.
	root := filepath.Join(b.Dir, "states")
	return errors.Join(b.discard(ctx, root), os.Mkdir(root, 0o755), b.emptyDaemon(ctx))
}

// contenders are those that can be compared here, and that -sides matches.
func (b *bench) contenders(ctx context.Context, dockerfiles []string, floor bool) (list []contender, err error) {
	if b.running == nil {
		b.running = []namedPeer{}
		for _, p := range b.peers() {
			err := p.start(ctx)
			var why skipped
			if errors.As(err, &why) {
				fmt.Fprintf(os.Stderr, "  %s: left out: %s\n", p.name, why)
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.name, err)
			}
			b.running = append(b.running, p)
		}
	}
	for _, p := range b.running {
		for _, d := range dockerfiles {
			list = append(list, contender{p, d})
		}
	}
	if floor {
		p := &floorPeer{bench: b}
		if err := p.start(ctx); err != nil {
			fmt.Fprintf(os.Stderr, "  floor: left out: %v\n", err)
		} else {
			list = append(list, contender{namedPeer{"floor", p, true}, ""})
		}
	}
	return slices.DeleteFunc(list, func(c contender) bool {
		return c.String() != subject && b.Sides != nil && !b.Sides.MatchString(c.String())
	}), nil
}

func (c *cell) rows(ctx context.Context, runs int) ([]Result, error) {
	list, err := c.contenders(ctx, c.workload.dockerfiles(), c.scenario.floor)
	if err != nil {
		return nil, err
	}
	if err := c.inTurn(ctx, list, runs, c.build); err != nil {
		return nil, err
	}
	return compare(c.name, c.builds, map[string]float64{"stock/by-hand": c.scenario.bound}), nil
}

// inTurn lets contenders build one after the other: A B C, C B A, and so on. The first round does not count: it fills caches, builders' or, for cold
// builds, those of proxies. A long scenario does without for those whose last build was one of this project as it is, with its image in the registry. An optional builder that can't do it is left out.
func (c *cell) inTurn(ctx context.Context, list []contender, runs int, build func(context.Context, contender, int) (Build, error)) error {
	c.builds = nil
	if c.scenario.long {
		runs = max(1, runs/3)
	}
	for round := -1; round < runs; round++ {
		slices.Reverse(list)
		var lost []string
		for i, k := range list {
			if round < 0 && c.scenario.cold && i > 0 {
				break
			}
			if last, ok := c.warm[k.String()]; ok && round < 0 && c.scenario.long && c.project != nil && last == c.project.serial {
				continue
			}
			f, err := build(ctx, k, round)
			var why skipped
			if err != nil && ctx.Err() == nil && (errors.As(err, &why) || k.optional) {
				fmt.Fprintf(os.Stderr, "  %s: left out: %v\n", k, err)
				lost = append(lost, k.String())
				delete(c.warm, k.String())
				continue
			}
			if err != nil {
				return fmt.Errorf("%s: %w", k, err)
			}
			if !c.scenario.cold && c.project != nil {
				c.warm[k.String()] = c.project.serial
			}
			if round >= 0 {
				fmt.Fprintf(os.Stderr, "  %s: %.2f s\n", k, f.Seconds)
				c.builds = append(c.builds, f)
			}
		}
		list = slices.DeleteFunc(list, func(k contender) bool { return slices.Contains(lost, k.String()) })
		c.builds = slices.DeleteFunc(c.builds, func(f Build) bool { return slices.Contains(lost, f.Side) })
	}
	return nil
}

func (c *cell) what() string { return c.scenario.what + ": " + c.workload.what }

// build makes one build and looks at what came out.
func (c *cell) build(ctx context.Context, k contender, round int) (Build, error) {
	dockerfile := c.project.naive
	if k.dockerfile == "by-hand" {
		dockerfile = c.project.byHand
	}
	state := strings.ToLower(c.workload.name) + "-" + cmp.Or(k.dockerfile, "none")
	j := job{state: state, dir: c.project.dir, file: dockerfile, image: fmt.Sprintf("%s/%s/%s:latest", c.registry, state, k.name),
		platforms: c.workload.platforms, stepsLogged: filepath.Join(c.Dir, "steps.jsonl")}
	if c.workload.apt {
		proxy, err := c.proxy()
		if err != nil {
			return Build{}, err
		}
		j.args = []string{"http_proxy=" + proxy, "no_proxy=127.0.0.1"}
	}
	if c.scenario.cold {
		// The registry does not ask in which repository a layer is: what another side has pushed would be there.
		if err := errors.Join(k.empty(ctx, state), c.emptyRegistry(ctx)); err != nil {
			return Build{}, err
		}
	}
	if c.scenario.change != nil {
		if err := c.scenario.change(c.workload, c.project); err != nil {
			return Build{}, err
		}
		j.changed = filepath.Join(c.project.dir, c.project.edit)
	}
	command, err := k.command(j)
	if err != nil {
		return Build{}, err
	}
	f, logs, err := c.observe(ctx, k.daemons(), command)
	if err != nil {
		return f, err
	}
	f.Side, f.Round = k.String(), round
	for line := range bytes.Lines(logs[0]) { // it has to do with what was measured
		if bytes.HasPrefix(line, []byte("optbuild: warning")) {
			fmt.Fprintf(os.Stderr, "  %s: %s", k, line)
		}
	}
	if f.Steps, err = k.steps(j, logs[0]); err != nil || k.dockerfile == "" {
		return f, err
	}
	return f, c.look(j.image, &f, round <= 0)
}

// look reads the pushed image, and, if asked to, whether it is made of what the project is now.
func (c *cell) look(ref string, f *Build, whole bool) error {
	img, err := pulled(strings.Replace(ref, c.registry, c.aside, 1))
	if err != nil {
		return err
	}
	layers, err := layersOf(img)
	if err != nil {
		return err
	}
	f.Layers = len(layers)
	for _, l := range layers {
		f.ImageBytes += l.Size
	}
	if !whole || c.workload.made == "" {
		return nil
	}
	content, err := contentOf(img, c.workload.made)
	if err != nil {
		return err
	}
	if mark := c.project.mark(); !strings.Contains(string(content), mark) {
		return fmt.Errorf("%s of the image is not made of the sources as they are now: it lacks %q", c.workload.made, mark)
	}
	return nil
}

// compare makes rows of the ratios of optbuild, with the naive Dockerfile, to the others.
func compare(name string, builds []Build, bounds map[string]float64) (rows []Result) {
	for _, side := range sidesOf(builds) {
		if side == subject {
			continue
		}
		for i, column := range figureColumns {
			r := summarise(name+", "+column.name, column.unit, valuesOf(builds, subject, column.of), valuesOf(builds, side, column.of), 0)
			if i == 0 {
				r.Bound = bounds[side]
			}
			r.Against = side
			rows = append(rows, r)
		}
	}
	return rows
}

// sidesOf are the sides that were measured, in the order of peerNames.
func sidesOf(builds []Build) (sides []string) {
	for _, f := range builds {
		if !slices.Contains(sides, f.Side) {
			sides = append(sides, f.Side)
		}
	}
	slices.SortFunc(sides, compareSides)
	return sides
}

func compareSides(a, b string) int {
	nameA, fileA, _ := strings.Cut(a, "/")
	nameB, fileB, _ := strings.Cut(b, "/")
	return cmp.Or(cmp.Compare(slices.Index(peerNames, nameA), slices.Index(peerNames, nameB)), cmp.Compare(fileB, fileA)) // naive, by-hand
}

// valuesOf are one figure of a side's builds, in the order of rounds.
func valuesOf(builds []Build, side string, of func(Build) float64) (v []float64) {
	for _, f := range builds {
		if f.Side == side {
			v = append(v, of(f))
		}
	}
	return v
}
