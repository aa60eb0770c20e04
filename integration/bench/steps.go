package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
)

// Steps are counted from what each builder says: optbuild in its log of steps, BuildKit and buildah in their output. Instructions that make no layer
// (ENV, CMD) and the base image are none.

var instruction = regexp.MustCompile(`^(?:\[[^\]]*\] )?(?:COPY|ADD|RUN|WORKDIR)\b`)

// loggedSteps reads optbuild's log of steps.
func loggedSteps(log []byte) (s Steps, err error) {
	for line := range bytes.Lines(log) {
		var step struct{ Step, Outcome string }
		if err := json.Unmarshal(line, &step); err != nil {
			return s, fmt.Errorf("read the log of steps: %w", err)
		}
		if !instruction.MatchString(step.Step) {
			continue
		}
		switch step.Outcome {
		case "executed", "unwatched", "failed", "canceled": // a build whose step failed is made again, as it is written
			s.Executed++
		case "replayed":
			s.Replayed++
		case "cached", "skipped":
			s.Cached++
		default:
			return s, fmt.Errorf("step %q: what %q means is not known", step.Step, step.Outcome)
		}
	}
	return s, nil
}

var plainLine = regexp.MustCompile(`^#(\d+) (.*)`)

// plainSteps reads BuildKit's plain progress: a step's name after its number, and later what became of it.
func plainSteps(log []byte) (s Steps) {
	steps := map[string]bool{}
	for line := range bytes.Lines(log) {
		m := plainLine.FindSubmatch(bytes.TrimRight(line, "\r\n"))
		if m == nil {
			continue
		}
		id, text := string(m[1]), m[2]
		switch {
		case instruction.Match(text):
			steps[id] = true
		case steps[id] && bytes.Equal(text, []byte("CACHED")):
			s.Cached++
			steps[id] = false
		case steps[id] && bytes.HasPrefix(text, []byte("DONE ")):
			s.Executed++
			steps[id] = false
		}
	}
	return s
}

var buildahStep = regexp.MustCompile(`^(?:\[[^\]]*\] )?STEP \d+/\d+: (.*)`)

// buildahSteps reads buildah's output: a step's text, and later, if it was not run, that the cache is used.
func buildahSteps(log []byte) (s Steps) {
	open := false
	for line := range bytes.Lines(log) {
		if m := buildahStep.FindSubmatch(line); m != nil {
			if open = instruction.Match(m[1]); open {
				s.Executed++
			}
			continue
		}
		if open && bytes.Contains(line, []byte("--> Using cache")) {
			s.Executed--
			s.Cached++
			open = false
		}
	}
	return s
}
