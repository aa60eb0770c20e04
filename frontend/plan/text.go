package plan

import "strings"

// Text is the plan as a Dockerfile. The map gives, for each of its lines (from index 1), the user's lines that it stands for;
// comments and blank lines map to the instruction below them.
func (p *Plan) Text() (text string, lines []Lines) {
	w := &writer{lines: make([]Lines, 1, 64), p: p}
	w.raw(p.Head, Lines{1, 1})
	for _, s := range p.Args {
		w.step(s)
	}
	for _, st := range p.Stages {
		w.step(st.From)
		for _, s := range st.Steps {
			w.step(s)
		}
	}
	if p.Tail == noNewline {
		return chomp(w.b.String()), w.lines
	}
	w.raw(p.Tail, Lines{len(splitLines(string(p.Source))), len(splitLines(string(p.Source)))})
	return w.b.String(), w.lines
}

type writer struct {
	p     *Plan
	b     strings.Builder
	lines []Lines
}

func (w *writer) raw(s string, l Lines) {
	w.b.WriteString(s)
	for range splitLines(s) {
		w.lines = append(w.lines, l)
	}
}

func (w *writer) step(s *Step) {
	w.raw(s.Lead, s.Lines)
	text := s.Text + "\n"
	n := strings.Count(text, "\n")
	w.b.WriteString(text)
	for i := range n {
		l := s.Lines
		if s.Of == nil { // the user's own: line by line
			l = Lines{s.Lines.First + i, s.Lines.First + i}
		}
		w.lines = append(w.lines, l)
	}
}
