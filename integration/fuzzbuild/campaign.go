package fuzzbuild

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// Campaign says what is checked.
type Campaign struct {
	Seed     uint64
	Projects []*Project
	// Most is how many mutations of each project are tried, chosen by the seed; 0 for all of them.
	Most int
	// Kinds are the kinds of mutations that are tried; nil for all of them.
	Kinds []string
	// Once says that of each kind of mutation one is enough.
	Once bool
	// Workers is how many projects are checked at a time; 0 is one.
	Workers int
	// Images are the base images that there are, besides those of package fakes; a project that needs another one is skipped.
	Images map[string]error
	// Progress gets a line now and then.
	Progress func(line string)
}

// Run builds each project, and again after each mutation, and after each mutation was undone.
func (r *Rig) Run(ctx context.Context, c Campaign) (*Report, error) {
	return r.each(ctx, c, func(ctx context.Context, p *Project, row *Row) error { return r.mutate(ctx, c, p, row) })
}

// each does something for each project, some at a time.
func (r *Rig) each(ctx context.Context, c Campaign, do func(context.Context, *Project, *Row) error) (*Report, error) {
	report := &Report{Seed: c.Seed, Date: time.Now()}
	todo := make(chan *Project)
	var wg sync.WaitGroup
	for range max(c.Workers, 1) {
		wg.Go(func() {
			for p := range todo {
				row := &Row{Project: p.Name}
				if p.Image != "" {
					err, ok := c.Images[p.Image]
					if err != nil {
						row.Skipped = strings.ReplaceAll(err.Error(), "\n", " ")
					} else if !ok {
						row.Skipped = "no base image " + p.Image
					}
				}
				start := time.Now()
				if row.Skipped == "" {
					row.Err = do(ctx, p, row)
				}
				row.Took = time.Since(start)
				report.mu.Lock()
				report.Rows = append(report.Rows, row)
				n := len(report.Rows)
				report.mu.Unlock()
				if c.Progress != nil && ctx.Err() == nil {
					c.Progress(fmt.Sprintf("%d/%d %s: %d changes in %s, %d replayed, %d differences", n, len(c.Projects), p.Name,
						row.Mutations, row.Took.Round(time.Second), row.Replayed, len(row.Differences)))
				}
			}
		})
	}
	for _, p := range c.Projects {
		select {
		case todo <- p:
		case <-ctx.Done():
		}
	}
	close(todo)
	wg.Wait()
	slices.SortFunc(report.Rows, func(a, b *Row) int { return cmp.Compare(a.Project, b.Project) })
	return report, context.Cause(ctx)
}

// mutate checks one project.
func (r *Rig) mutate(ctx context.Context, c Campaign, p *Project, row *Row) error {
	k, err := r.newChecker(p, row)
	if err != nil {
		return err
	}
	defer k.remove()
	pristine, err := Take(k.context)
	if err != nil {
		return err
	}
	if err := k.check(ctx, "nothing"); err != nil {
		return err
	}
	if k.clean[pristine.Key(true)].Failed != "" {
		return fmt.Errorf("%s does not build: %s", p.Name, tail(k.clean[pristine.Key(true)].Log))
	}
	all := Mutations(p, pristine, c.Seed)
	if c.Kinds != nil {
		all = slices.DeleteFunc(all, func(m Mutation) bool { return !slices.Contains(c.Kinds, m.Kind) })
	}
	if c.Once {
		seen := map[string]bool{}
		all = slices.DeleteFunc(all, func(m Mutation) bool {
			again := seen[m.Kind]
			seen[m.Kind] = true
			return again
		})
	}
	if c.Most > 0 {
		random := rand.New(rand.NewPCG(c.Seed, digest(p.Name)))
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		all = all[:min(c.Most, len(all))]
	}
	for _, m := range all {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		row.Mutations++
		if err := m.Apply(p, k.context); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		if err := k.check(ctx, m.String()); err != nil {
			return err
		}
		if err := pristine.Put(k.context); err != nil {
			return fmt.Errorf("%s: undo %s: %w", p.Name, m, err)
		}
		if err := k.check(ctx, "undo "+m.String()); err != nil {
			return err
		}
	}
	return nil
}
