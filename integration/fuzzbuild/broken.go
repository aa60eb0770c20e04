package fuzzbuild

import (
	"context"
	"os"
	"path/filepath"
	"sync"
)

// Broken is a product that does not see all of what changed in a context since the last build: the harness has to find it out. With a
// state directory that is new it is right.
type Broken struct {
	Of Product
	// Sees is the context that is built: all that a product sees that saw the one before.
	Sees func(before, now State) State

	mu     sync.Mutex
	before map[string]State // by state directory
}

// Build builds what the product sees.
func (b *Broken) Build(ctx context.Context, p *Project, dir, state string) (*Outcome, error) {
	now, err := Take(dir)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	if b.before == nil {
		b.before = map[string]State{}
	}
	before := b.before[state]
	b.before[state] = now
	b.mu.Unlock()
	seen := now
	if before != nil {
		seen = b.Sees(before, now)
	}
	shadow := filepath.Join(state+".shadow", "context")
	if err := os.MkdirAll(shadow, 0o755); err != nil {
		return nil, err
	}
	if err := seen.Put(shadow); err != nil {
		return nil, err
	}
	return b.Of.Build(ctx, p, shadow, state)
}

// Breakages are ways of being wrong, with the kinds of mutations that show them and kinds that do not.
var Breakages = []struct {
	Name       string
	Sees       func(before, now State) State
	Shows, Not []string
}{
	{"drops the last change", func(before, _ State) State { return before }, nil, nil},
	{"believes in sizes", func(before, now State) State {
		return merge(before, now, func(b, n File) File {
			if b.Mode == n.Mode && len(b.Content) == len(n.Content) {
				return b
			}
			return n
		})
	}, []string{"same-size", "same-size-and-time"}, []string{"grow", "delete", "touch"}},
	{"believes in sizes and time stamps", func(before, now State) State {
		return merge(before, now, func(b, n File) File {
			if b.Mode == n.Mode && len(b.Content) == len(n.Content) && b.Time.Equal(n.Time) {
				return b
			}
			return n
		})
	}, []string{"same-size-and-time"}, []string{"same-size", "grow"}},
	{"ignores modes", func(before, now State) State {
		return merge(before, now, func(b, n File) File {
			if b.Mode.Type() == n.Mode.Type() {
				n.Mode = b.Mode
			}
			return n
		})
	}, []string{"chmod-755", "chmod-664", "chmod-700"}, []string{"same-size", "rename"}},
	{"ignores what is new", func(before, now State) State {
		out := State{}
		for p, f := range now {
			if _, ok := before[p]; ok {
				out[p] = f
			}
		}
		return out
	}, []string{"add-file", "add-directory", "create", "create-link"}, []string{"same-size", "delete", "chmod-755"}},
	{"ignores what is gone", func(before, now State) State {
		out := State{}
		for p, f := range before {
			out[p] = f
		}
		for p, f := range now {
			out[p] = f
		}
		return out
	}, []string{"delete"}, []string{"same-size", "add-file"}},
	{"ignores where links lead", func(before, now State) State {
		return merge(before, now, func(b, n File) File {
			if b.Mode.Type()&os.ModeSymlink != 0 && n.Mode.Type()&os.ModeSymlink != 0 {
				return b
			}
			return n
		})
	}, []string{"retarget", "retarget-same"}, []string{"link-to-file", "same-size"}},
}

// merge is the state now, with each path that was there before as choose wants it.
func merge(before, now State, choose func(before, now File) File) State {
	out := State{}
	for p, f := range now {
		if b, ok := before[p]; ok {
			f = choose(b, f)
		}
		out[p] = f
	}
	return out
}
