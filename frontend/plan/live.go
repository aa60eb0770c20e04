package plan

import (
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// Live are the stages that the target needs, in the file's order; a reference that depends on what is not known makes every stage live.
func (p *Plan) Live(f *Facts) []*Stage {
	target := p.Target(f)
	if target == nil {
		return nil
	}
	live := map[*Stage]bool{}
	if ref := p.Reach(target, f, live); ref != nil {
		return p.Stages
	}
	var list []*Stage
	for _, st := range p.Stages {
		if live[st] {
			list = append(list, st)
		}
	}
	return list
}

// Unfollowed is a reference to a stage or image that depends on what is not known.
type Unfollowed struct {
	Step *Step
	Why  string
}

// Reach adds to live what st needs, itself included. It stops at a reference that it cannot follow.
func (p *Plan) Reach(st *Stage, f *Facts, live map[*Stage]bool) *Unfollowed {
	if live[st] {
		return nil
	}
	live[st] = true
	base, image, ok := p.Resolve(st, f)
	for _, trigger := range f.Images[image].OnBuild {
		if strings.Contains(strings.ToLower(trigger), "from=") {
			return &Unfollowed{st.From, "a trigger of the base image may refer to any stage"}
		}
	}
	if !ok {
		return &Unfollowed{st.From, "FROM " + st.Def.BaseName + " depends on a value that is not known"}
	}
	if base != nil {
		if u := p.Reach(base, f, live); u != nil {
			return u
		}
	}
	for _, s := range st.Steps {
		if c, ok := s.Cmd.(*instructions.OnbuildCommand); ok && strings.Contains(strings.ToLower(c.Expression), "from=") {
			return &Unfollowed{s, "ONBUILD may refer to any stage"}
		}
		for _, name := range References(s.Cmd) {
			if strings.Contains(name, "$") {
				return &Unfollowed{s, name + " depends on a variable"}
			}
			if dep := p.Stage(name); dep != nil {
				if u := p.Reach(dep, f, live); u != nil {
					return u
				}
			}
		}
	}
	return nil
}

// References are the stages or images, as written, that a step copies or mounts from.
func References(c instructions.Command) []string {
	switch c := c.(type) {
	case *instructions.CopyCommand:
		if c.From != "" {
			return []string{c.From}
		}
	case *instructions.RunCommand:
		var refs []string
		for _, m := range instructions.GetMounts(c) {
			if m.From != "" {
				refs = append(refs, m.From)
			}
		}
		return refs
	}
	return nil
}
