package plan

import (
	"fmt"
	"io"
	"strings"
)

// Fprint writes the plan for people and for tests: a line a step, with its number, the user's lines and its text.
//
//	arg    s1   1      ARG V=1
//	stage build (0)
//	       s2   2      FROM golang:1.22 AS build
//	       s9   4-5    RUN go build && go install    <- s4 s5
func Fprint(w io.Writer, p *Plan) {
	for _, s := range p.Args {
		fprintStep(w, "arg", s)
	}
	for _, st := range p.Stages {
		if st.Def.Name != "" {
			fmt.Fprintf(w, "stage %s (%d)\n", st.Def.Name, st.Index)
		} else {
			fmt.Fprintf(w, "stage %d\n", st.Index)
		}
		fprintStep(w, "", st.From)
		for _, s := range st.Steps {
			fprintStep(w, "", s)
		}
	}
}

func fprintStep(w io.Writer, kind string, s *Step) {
	lines := fmt.Sprint(s.Lines.First)
	if s.Lines.Last != s.Lines.First {
		lines += fmt.Sprintf("-%d", s.Lines.Last)
	}
	fmt.Fprintf(w, "%-6s s%-3d %-6s %s", kind, s.ID, lines, strings.ReplaceAll(s.Text, "\n", "\n"+strings.Repeat(" ", 20)))
	if s.Of != nil {
		fmt.Fprint(w, "    <-")
		for _, id := range s.Of {
			fmt.Fprintf(w, " s%d", id)
		}
	}
	fmt.Fprintln(w)
}
