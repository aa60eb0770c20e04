package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/docker/go-units"

	"github.com/optbuild/optbuild/builder/outcome"
	"github.com/optbuild/optbuild/frontend/explain"
)

// This file has the words for what became of steps.

// stepColumn is how much of a step's text a list shows, in characters.
const stepColumn = 48

// printSteps lists all steps of a build.
func printSteps(w io.Writer, b toldBuild, now time.Time) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range b.Steps {
		fmt.Fprintf(tw, "%s\t%s\t%s\n", b.position(s), short(b.titled(s)), s.sentence())
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if b.Cut {
		fmt.Fprintln(w, "(and more steps, which were too many to be kept)")
	}
	_, err := fmt.Fprintf(w, "\n%s\n", b.about(now))
	return err
}

// printStep tells all that is known of one instruction.
func printStep(w io.Writer, b toldBuild, steps []toldStep) (err error) {
	for _, s := range steps {
		var text strings.Builder
		if at := b.position(s); at != "" {
			text.WriteString(at + "  ")
		}
		fmt.Fprintf(&text, "%s\n%s\n", visible(b.titled(s)), s.sentence())
		for _, d := range s.Details {
			fmt.Fprintf(&text, "  %s\n", visible(d))
		}
		if s.Unseen != "" {
			fmt.Fprintf(&text, "not watched, so that it runs again after every change before it: %s\n", visible(s.Unseen))
		} else if s.Outcome == string(outcome.Executed) && s.Observed > 0 {
			fmt.Fprintf(&text, "it looked up %s in what was copied: while what it found stays as it is, it need not run again\n", names(s.Observed))
		}
		if _, err = io.WriteString(w, text.String()); err != nil {
			return err
		}
	}
	return nil
}

// printWhyJSON prints a line for each step.
func printWhyJSON(w io.Writer, b toldBuild, steps []toldStep) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	for _, s := range steps {
		s.File = b.Dockerfile
		if err := e.Encode(s); err != nil {
			return err
		}
	}
	return nil
}

// sentence says what became of a step, and why.
func (s toldStep) sentence() string {
	took := ""
	if s.Seconds > 0 {
		took = " " + explain.Seconds(s.Seconds)
	}
	text := ""
	switch s.Outcome {
	case string(outcome.Replayed):
		text = "replayed: nothing that it read has changed"
		if s.Observed > 0 {
			text += fmt.Sprintf(" (it looked up %s in what was copied)", names(s.Observed))
		}
		return text
	case becameCached:
		return "cached"
	case becameNothing:
		return "not reached"
	case becameCanceled:
		text = "canceled"
	case becameFailed:
		text = "ran" + took + " and failed"
	default:
		text = "ran" + took
		if s.Unseen != "" {
			text += ", not watched"
		}
	}
	if s.Reason != "" {
		text += ": " + visible(s.Reason)
	}
	if n := len(s.Details); n > 0 {
		text += fmt.Sprintf(" (and %d more)", n)
	}
	return text
}

// titled is the text of a step; that of a build for several platforms has its platform.
func (b toldBuild) titled(s toldStep) string {
	for _, other := range b.Steps {
		if s.Platform != "" && other.Line == s.Line && other.Step == s.Step && other.Platform != s.Platform {
			return "(" + s.Platform + ") " + s.Step
		}
	}
	return s.Step
}

// position is the place of a step, "" if it is not known.
func (b toldBuild) position(s toldStep) string {
	switch {
	case s.Line == 0:
		return ""
	case s.LastLine > s.Line:
		return fmt.Sprintf("%s:%d-%d", b.file(), s.Line, s.LastLine)
	}
	return fmt.Sprintf("%s:%d", b.file(), s.Line)
}

func (b toldBuild) file() string {
	if b.Dockerfile == "" {
		return "Dockerfile"
	}
	return visible(shortPath(b.Dockerfile))
}

// about says which build it was, and counts.
func (b toldBuild) about(now time.Time) string {
	text := b.file()
	if b.Target != "" {
		text += ", target " + visible(b.Target)
	}
	if b.Platform != "" {
		text += ", " + visible(b.Platform)
	}
	text += ", " + strings.ToLower(units.HumanDuration(max(0, now.Sub(b.Ended)))) + " ago"
	if b.Failed {
		text += ", failed"
	}
	var replayed, ran, cached int
	for _, s := range b.Steps {
		switch {
		case s.ran():
			ran++
		case s.Outcome == string(outcome.Replayed):
			replayed++
		case s.Outcome == becameCached:
			cached++
		}
	}
	var counts []string
	for _, c := range []struct {
		n    int
		what string
	}{{replayed, "replayed"}, {ran, "ran"}, {cached, "cached"}} {
		if c.n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	if len(counts) > 0 {
		text += ": " + strings.Join(counts, ", ")
	}
	return text
}

// summary is what a build says by itself of its RUNs, line by line: only if there was something to replay, or a RUN ran again.
func (b toldBuild) summary() (lines []string) {
	var replayed, ran int
	again, unseen, watched := false, "", false
	for _, s := range b.Steps {
		switch {
		case !s.isRun():
			continue
		case s.Outcome == string(outcome.Replayed):
			replayed++
		case s.ran():
			ran++
			again = again || s.Reason != "" && s.Reason != outcome.FirstBuild
			watched = watched || s.Outcome == string(outcome.Executed) && s.Observed > 0
			if s.machine {
				unseen = s.Unseen
			}
		}
	}
	switch {
	case replayed > 0 && ran > 0:
		lines = append(lines, fmt.Sprintf("%d step%s replayed, %d ran (optbuild why)", replayed, plural(replayed), ran))
	case replayed > 0:
		lines = append(lines, fmt.Sprintf("%d step%s replayed (optbuild why)", replayed, plural(replayed)))
	case again:
		lines = append(lines, fmt.Sprintf("%d step%s ran (optbuild why)", ran, plural(ran)))
	}
	if unseen != "" && !watched {
		lines = append(lines, "steps were not watched, so none can be replayed: "+visible(unseen))
	}
	return append(lines, b.foreign()...)
}

// ranSteps are the RUN steps that ran in one way.
type ranSteps struct {
	Steps   int     `json:"steps"`
	Seconds float64 `json:"seconds"`
}

// hows are the ways, in the order in which they are told.
var hows = []string{native, shared, cross, emulated}

// ran counts the RUN steps of a build for other platforms by how they ran; nil for other builds.
func (b toldBuild) ran() map[string]ranSteps {
	count := map[string]ranSteps{}
	for _, s := range b.Steps {
		if s.How != "" {
			c := count[s.How]
			count[s.How] = ranSteps{c.Steps + 1, c.Seconds + s.Seconds}
		}
	}
	if count[shared].Steps+count[cross].Steps+count[emulated].Steps == 0 {
		return nil
	}
	return count
}

// foreign says how the steps of a build for other platforms ran, and what the longest of those that were emulated cost.
func (b toldBuild) foreign() (lines []string) {
	count := b.ran()
	if count == nil {
		return nil
	}
	var longest toldStep
	for _, s := range b.Steps {
		if s.How == emulated && (longest.How == "" || s.Seconds > longest.Seconds) {
			longest = s
		}
	}
	var list []string
	for _, how := range hows {
		if c := count[how]; c.Steps > 0 {
			list = append(list, fmt.Sprintf("%d %s (%.1fs)", c.Steps, how, c.Seconds))
		}
	}
	lines = append(lines, "RUN steps: "+strings.Join(list, ", "))
	if longest.How != "" {
		place := ""
		if longest.Line > 0 {
			place = fmt.Sprintf(" in line %d", longest.Line)
		}
		lines = append(lines, fmt.Sprintf("emulated: the longest is %s%s, %.1fs for %s; a machine of that platform (build --partial), or a stage that compiles across (FROM --platform=$BUILDPLATFORM), needs no emulation",
			clip(visible(longest.Step), 60), place, longest.Seconds, longest.Platform))
	}
	return lines
}

// same says of stages that were emulated though what images take of them was the same for all platforms, how that could be spared.
func (b toldBuild) same(stages []string) (lines []string) {
	for _, name := range stages {
		seconds, ran := 0.0, false
		for _, s := range b.Steps {
			if s.How == emulated && (strings.EqualFold(s.Stage, name) || s.Stage == "stage-"+name) {
				seconds, ran = seconds+s.Seconds, true
			}
		}
		if ran {
			lines = append(lines, fmt.Sprintf("stage %s: what is copied from it was the same for all platforms, but for times; --share-stage %s runs it once (saves %.1fs of emulation)", visible(name), visible(name), seconds))
		}
	}
	return lines
}

func names(n int) string { return fmt.Sprintf("%d name%s", n, plural(n)) }

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

// visible makes a line of a text that came from elsewhere.
func visible(s string) string { return explain.Visible(oneLine(s)) }

// short is a text as a column has room for it.
func short(s string) string {
	s = visible(s)
	if utf8.RuneCountInString(s) <= stepColumn {
		return s
	}
	return string([]rune(s)[:stepColumn-3]) + "..."
}
