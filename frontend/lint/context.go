package lint

import (
	"slices"

	"github.com/optbuild/optbuild/frontend/plan"
)

// filesNamed are the files of the context that f wants, sorted.
func filesNamed(ctx *plan.Context, f func(name string) bool) (list []string) {
	if ctx == nil {
		return nil
	}
	for name, p := range ctx.Paths {
		if p.Exists && !p.Mode.IsDir() && f(name) {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// Wants lists the files of the context that the rules would like to read: world.Options has a place for it.
func Wants(p *plan.Plan, f *plan.Facts) []string {
	list := append(entryScripts(p, f), filesNamed(f.Context, mayBeSecret)...)
	if f.Context != nil && f.Context.Paths[".gitignore"].Exists {
		list = append(list, ".gitignore")
	}
	return list
}
