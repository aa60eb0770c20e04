package opt

import (
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/optbuild/optbuild/frontend/plan"
)

// insertion is text to be put into a RUN's shell text.
type insertion struct {
	at   uint // in bytes of the text that the shell gets
	text string
}

// insertRun puts texts into a RUN as the user wrote it: its line breaks and comments stay. ok is false if what the shell then gets is not what it got with just the texts put in.
func insertRun(source string, at *plan.State, inserts []insertion) (text string, ok bool) {
	before, ok := shellText(source, at)
	if !ok {
		return "", false
	}
	slices.SortFunc(inserts, func(a, b insertion) int { return int(a.at) - int(b.at) })
	want := splice(before, inserts, nil)
	for start := range source {
		places, ok := align(source, start, before)
		if !ok {
			continue
		}
		text := splice(source, inserts, places)
		if got, ok := shellText(text, at); ok && got == want {
			return text, true
		}
	}
	return "", false
}

// splice puts the texts in, at places[at] if there are places.
func splice(s string, inserts []insertion, places []int) string {
	var b strings.Builder
	end := 0
	for _, in := range inserts {
		at := int(in.at)
		if places != nil {
			at = places[at]
		}
		b.WriteString(s[end:at])
		b.WriteString(in.text)
		end = at
	}
	b.WriteString(s[end:])
	return b.String()
}

// align finds the bytes of text in source, from start on: what lies between them are line continuations, with the comments and blank lines that may follow.
func align(source string, start int, text string) (places []int, ok bool) {
	i := start
	for j := 0; j < len(text); j++ {
		for i < len(source) && source[i] != text[j] {
			next := continued(source, i)
			if next == i {
				return nil, false
			}
			i = next
		}
		if i == len(source) {
			return nil, false
		}
		places = append(places, i)
		i++
	}
	return places, true
}

// continued is where the text goes on after a line continuation at i, i if there is none.
func continued(source string, i int) int {
	if source[i] != '\\' {
		return i
	}
	rest, newline, ok := strings.Cut(source[i+1:], "\n")
	if !ok || strings.TrimSpace(rest) != "" {
		return i
	}
	i = len(source) - len(newline)
	for {
		line, next, ok := strings.Cut(source[i:], "\n")
		if blank := strings.TrimSpace(line); !ok || blank != "" && blank[0] != '#' {
			return i
		}
		i = len(source) - len(next)
	}
}

// shellText is what the shell gets of a RUN in shell form.
func shellText(source string, at *plan.State) (string, bool) {
	res, err := parser.Parse(strings.NewReader(source + "\n"))
	if err != nil || len(res.AST.Children) != 1 {
		return "", false
	}
	cmd, err := instructions.ParseInstruction(res.AST.Children[0])
	if err != nil {
		return "", false
	}
	run, ok := cmd.(*instructions.RunCommand)
	if !ok || !run.PrependShell {
		return "", false
	}
	sc, err := scriptOf(run, at)
	if err != nil {
		return "", false
	}
	return sc.Text, true
}
