package opt

import "github.com/optbuild/optbuild/frontend/plan"

// shareWants are the paths of the context that shareStages asks for.
func shareWants(p *plan.Plan, f *plan.Facts) (want []string) {
	if !crosses(f) {
		return nil
	}
	for st := range fromImages(p, f) {
		if c := newSharing(p, f, st, Options{}); c.considered() {
			c.ask = &want
			c.refusal(false)
		}
	}
	return want
}

// shareImages are the base images of which shareStages would like to know whether they are the same on the build platform.
func shareImages(p *plan.Plan, f *plan.Facts, o Options) (names []string) {
	if !crosses(f) {
		return nil
	}
	for st, name := range fromImages(p, f) {
		c := newSharing(p, f, st, o)
		_, known := official(name, true)
		if c.asked() != nil || known && c.considered() {
			names = append(names, name)
		}
	}
	return names
}
