package fuzzbuild

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// Sequences is a campaign of random edits.
type Sequences struct {
	Campaign
	// Steps is how often each project is changed and built.
	Steps int
}

// large is how many paths a context may have before it is put back to what it was at first.
const large = 40

// RunSequences changes each project again and again, several things at a time, goes back to earlier contexts, rewrites steps, builds with
// two state directories in turn, kills builds, and prunes in between. Every build is compared.
func (r *Rig) RunSequences(ctx context.Context, s Sequences) (*Report, error) {
	return r.each(ctx, s.Campaign, func(ctx context.Context, p *Project, row *Row) error {
		// The name of a generated project holds its seed: it is all that is needed to do the same again.
		q, err := r.newSequence(p, row, 4)
		if err != nil {
			return err
		}
		defer q.remove()
		if err := q.check(ctx, "nothing"); err != nil {
			return err
		}
		for range s.Steps {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := q.step(ctx); err != nil {
				return fmt.Errorf("%s: %w", p.Name, err)
			}
		}
		return nil
	})
}

// newSequence begins with a project as it is. What will be done depends on its name and a seed. The caller removes what it leaves.
func (r *Rig) newSequence(p *Project, row *Row, seed uint64) (*sequence, error) {
	c, err := r.newChecker(p, row)
	if err != nil {
		return nil, err
	}
	first, err := Take(c.context)
	if err != nil {
		c.remove()
		return nil, err
	}
	return &sequence{
		checker: c, states: []State{first}, memories: map[string]memory{},
		generator: &generator{Rand: rand.New(rand.NewPCG(digest(p.Name), seed)), outputs: 1000},
	}, nil
}

// sequence is a project on its way.
type sequence struct {
	*checker
	*generator
	states   []State // that were built
	memories map[string]memory
}

// memory is what is known of a state directory.
type memory struct {
	book    layerBook
	history []built
}

// edit changes the context, and says what was done.
func (q *sequence) edit() (did []string, err error) {
	q.report.Mutations++
	switch {
	case q.chance(20): // an earlier context, time stamps included
		n := q.IntN(len(q.states))
		if err := q.states[n].Put(q.context); err != nil {
			return nil, err
		}
		did = append(did, fmt.Sprintf("back to context %d", n))
		if q.project.Times {
			if err := beat(filepath.Join(q.context, q.project.Pulse)); err != nil {
				return nil, err
			}
		}
	case q.chance(10):
		d, err := q.rewriteStep()
		if err != nil {
			return nil, err
		}
		did = append(did, d)
		if q.project.Times {
			if err := beat(filepath.Join(q.context, q.project.Pulse)); err != nil {
				return nil, err
			}
		}
	default:
		for range 1 + q.IntN(3) {
			s, err := Take(q.context)
			if err != nil {
				return nil, err
			}
			all := Mutations(q.project, s, q.Uint64())
			m := all[q.IntN(len(all))]
			if err := m.Apply(q.project, q.context); err != nil {
				continue // what it is about is no longer as it was at first; half of it may be done
			}
			did = append(did, m.String())
		}
	}
	s, err := Take(q.context)
	if err != nil {
		return nil, err
	}
	if len(s) > large {
		if err := q.states[0].Put(q.context); err != nil {
			return nil, err
		}
		did = []string{"back to context 0"}
		s = q.states[0]
	}
	q.states = append(q.states, s)
	return did, nil
}

// step edits, does something to optbuild perhaps, builds and compares.
func (q *sequence) step(ctx context.Context) error {
	did, err := q.edit()
	if err != nil {
		return err
	}
	if q.chance(40) {
		q.other()
		did = append(did, "other state directory")
	}
	o, ok := q.Product.(*Optbuild)
	switch {
	case !ok:
	case q.chance(15):
		engine, events := q.chance(50), 1+q.IntN(40)
		killed, err := o.Kill(ctx, q.project, q.context, q.state, events, engine)
		if err != nil {
			return err
		}
		if killed {
			q.report.Kills++
		}
		did = append(did, fmt.Sprintf("kill -9 after %d events (engine: %t)", events, engine))
	case q.chance(12):
		return q.both(ctx, o, strings.Join(did, "; "))
	case q.chance(8) && len(q.history) > 0: // in a directory that nothing was built in, prune has nothing to ask
		args := pick(q.generator, nil, []string{"-a"})
		if err := o.Prune(ctx, q.state, args...); err != nil {
			return err
		}
		q.report.Prunes++
		q.book = layerBook{}
		did = append(did, "prune "+strings.Join(args, " "))
	}
	return q.check(ctx, strings.Join(did, "; "))
}

// other changes to the other state directory.
func (q *sequence) other() {
	q.memories[q.state] = memory{q.book, q.history}
	if s, ok := strings.CutSuffix(q.state, "2"); ok {
		q.state = s
	} else {
		q.state += "2"
	}
	m := q.memories[q.state]
	if q.book, q.history = m.book, m.history; q.book == nil {
		q.book = layerBook{}
	}
}

// both builds the context and, at the same time and in the same state directory, an earlier one from another directory.
func (q *sequence) both(ctx context.Context, o *Optbuild, did string) error {
	n := q.IntN(len(q.states) - 1)
	earlier := q.states[n]
	beside := filepath.Join(filepath.Dir(q.context), "beside")
	if err := os.MkdirAll(beside, 0o755); err != nil {
		return err
	}
	if err := earlier.Put(beside); err != nil {
		return err
	}
	type result struct {
		out *Outcome
		err error
	}
	other := make(chan result, 1)
	go func() {
		ctx, cancel := impatient(ctx)
		defer cancel()
		out, err := o.build(ctx, q.project, beside, q.state, q.state+".beside", how{})
		other <- result{out, err}
	}()
	err := q.check(ctx, did+fmt.Sprintf("; context %d at the same time", n))
	r := <-other
	if err = errors.Join(err, r.err); err != nil {
		return err
	}
	q.remember(earlier, r.out)
	here := q.context
	q.context = beside
	defer func() { q.context = here }()
	_, err = q.judge(ctx, fmt.Sprintf("%s; this is context %d at the same time", did, n), earlier, r.out)
	return err
}

// rewriteStep makes another RUN of one of the Dockerfile's.
func (q *sequence) rewriteStep() (string, error) {
	file := filepath.Join(q.context, "Dockerfile")
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	lines := strings.Split(string(b), "\n")
	var runs []int
	for i, l := range lines {
		if strings.HasPrefix(l, "RUN ") && !strings.Contains(l, "-nt") {
			runs = append(runs, i)
		}
	}
	if len(runs) == 0 {
		return "no step to rewrite", nil
	}
	at := runs[q.IntN(len(runs))]
	lines[at] = q.Run()
	return fmt.Sprintf("line %d: %s", at+1, lines[at]), os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o644)
}

func digest(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return h.Sum64()
}
