package main

import (
	"cmp"
	"os"
	"slices"
	"strings"

	"github.com/optbuild/optbuild/frontend/plan"
)

// A build that fails comes without the compiler's report, so the lines of its steps are looked up in the Dockerfile, by their texts. In the names of steps
// variables have their values, and steps may have been merged: some lines stay unknown.

// findLines adds lines to the steps of a Dockerfile.
func findLines(steps []toldStep, path string) {
	src, err := os.ReadFile(path)
	if err != nil {
		return
	}
	p, err := plan.Parse(path, src)
	if err != nil {
		return
	}
	for i := range steps {
		if found := instructionOf(p, steps[i]); found != nil {
			steps[i].Line, steps[i].LastLine = found.Lines.First, found.Lines.Last
		}
	}
}

// instructionOf returns the one instruction that a step may be, nil if there are several or none.
func instructionOf(p *plan.Plan, s toldStep) (found *plan.Step) {
	want := strings.Fields(s.Step)
	for _, stage := range p.Stages {
		if s.Stage != "" && s.Stage != "stage-"+stage.Name() && !strings.EqualFold(s.Stage, stage.Name()) || s.Stage == "" && len(p.Stages) > 1 {
			continue
		}
		if strings.HasPrefix(s.Step, "FROM ") {
			return stage.From
		}
		for _, candidate := range stage.Steps {
			have := strings.Fields(strings.ReplaceAll(candidate.Text, string(p.Escape)+"\n", ""))
			if len(have) == 0 || len(want) == 0 || !strings.EqualFold(have[0], want[0]) || !slices.Equal(have[1:], want[1:]) {
				continue
			}
			if found != nil {
				return nil
			}
			found = candidate
		}
	}
	return found
}

// sortSteps puts steps into the Dockerfile's order. Where a line is not known, a step stands where the engine named it: behind what it depends on.
func sortSteps(steps []toldStep) {
	last := 0 // line
	lines := map[string]int{}
	for _, s := range steps {
		if s.Line > 0 {
			last = s.Line
		}
		lines[s.Vertex] = last
	}
	if last == 0 {
		return
	}
	slices.SortStableFunc(steps, func(a, b toldStep) int {
		return cmp.Or(cmp.Compare(lines[a.Vertex], lines[b.Vertex]))
	})
}
