package opt

import "github.com/optbuild/optbuild/frontend/plan"

// shareWants are the paths of the context that shareStages asks for.
func shareWants(p *plan.Plan, f *plan.Facts) (want []string) {
	if !crosses(f) {
		return nil
	}
	for _, st := range p.Stages {
		if base, _, ok := p.Resolve(st, f); base != nil || !ok {
			continue
		}
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
	for _, st := range p.Stages {
		base, name, ok := p.Resolve(st, f)
		if base != nil || !ok || st.Def.Platform != "" {
			continue
		}
		c := newSharing(p, f, st, o)
		_, known := official(name, true)
		if c.asked() != nil || known && c.considered() {
			names = append(names, name)
		}
	}
	return names
}
