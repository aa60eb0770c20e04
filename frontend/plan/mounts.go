package plan

import (
	"fmt"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// Mounts are the mounts of a RUN, nil for other steps. BuildKit reads most of a mount only when it expands variables, which it does in place: the step's
// own command knows no more than where its mounts come from.
func (p *Plan) Mounts(s *Step, at *State) ([]*instructions.Mount, error) {
	run, ok := s.Cmd.(*instructions.RunCommand)
	if !ok || len(instructions.GetMounts(run)) == 0 {
		return nil, nil
	}
	n, err := p.node(s.Text)
	if err != nil {
		return nil, err
	}
	v, err := instructions.ParseInstructionWithLinter(n, quiet)
	if err != nil {
		return nil, err
	}
	run = v.(*instructions.RunCommand)
	err = run.Expand(func(word string) (string, error) {
		value, ok := at.Expand(word)
		if !ok {
			return "", fmt.Errorf("expand %s: value is not known", word)
		}
		return value, nil
	})
	if err != nil {
		return nil, err
	}
	return instructions.GetMounts(run), nil
}
