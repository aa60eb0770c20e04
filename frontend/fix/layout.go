package fix

import (
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/optbuild/optbuild/frontend/plan"
)

// width is where a line with several flags becomes several lines.
const width = 100

// layOut is q, made of p, with the steps that passes made laid out as people write them, and with all of p's comments.
func layOut(p, q *plan.Plan) *plan.Plan {
	q = q.Clone()
	crlf := strings.Contains(string(p.Source), "\r\n")
	each(q, func(s *plan.Step) *plan.Step {
		if s.Of == nil {
			return s
		}
		s = s.WithLead(squeeze(s.Lead))
		t := *s
		t.Text = flagLines(s.Text, q.Escape, indentation(s.Text, string(p.Source)))
		if crlf {
			t.Text = strings.ReplaceAll(strings.ReplaceAll(t.Text+"\n", "\r\n", "\n"), "\n", "\r\n")
			t.Text = strings.TrimSuffix(t.Text, "\n")
		}
		if !same(s.Text, t.Text, q.Escape) {
			return s
		}
		return &t
	})
	restoreComments(p, q)
	return q
}

// each replaces every step of a plan, FROMs and global ARGs included.
func each(p *plan.Plan, f func(*plan.Step) *plan.Step) {
	for i, s := range p.Args {
		p.Args[i] = f(s)
	}
	for _, st := range p.Stages {
		st.From = f(st.From)
		for i, s := range st.Steps {
			st.Steps[i] = f(s)
		}
	}
}

// flagLines gives each flag of an instruction a line of its own if one line would be long or has several.
//
//	RUN --mount=type=cache,target=/a --mount=type=cache,target=/b apt-get update
//
// becomes
//
//	RUN --mount=type=cache,target=/a \
//	    --mount=type=cache,target=/b \
//	    apt-get update
func flagLines(text string, escape rune, indent string) string {
	first, _, _ := strings.Cut(text, "\n")
	first = strings.TrimSuffix(first, "\r")
	if strings.Contains(first, "<<") || !strings.HasPrefix(strings.ToUpper(first), "RUN ") {
		return text
	}
	words := strings.Fields(first)
	n := 1
	for n < len(words) && strings.HasPrefix(words[n], "--") {
		n++
	}
	flags := words[1:n]
	if len(flags) == 0 || len(flags) == 1 && len(first) <= width {
		return text
	}
	rest := text[len(words[0]):]
	for _, f := range flags {
		rest = strings.TrimLeft(rest, " \t")
		rest = rest[len(f):]
	}
	rest = strings.TrimLeft(rest, " \t")
	end := " " + string(escape) + "\n"
	out := words[0] + " " + strings.Join(flags, end+indent)
	if strings.HasPrefix(rest, string(escape)) { // the user's own line break
		return out + " " + rest
	}
	return out + end + indent + rest
}

// indentation is how the step's own continuation lines begin, or the file's, or four spaces.
func indentation(text, file string) string {
	for _, src := range []string{text, file} {
		continued := false
		for line := range strings.Lines(src) {
			body := strings.TrimLeft(line, " \t")
			if indent := line[:len(line)-len(body)]; continued && indent != "" && body != "" && !strings.HasPrefix(body, "#") && !strings.HasPrefix(body, "--") {
				return indent
			}
			continued = strings.HasSuffix(strings.TrimRight(line, " \t\r\n"), `\`)
		}
	}
	return "    "
}

// squeeze leaves one blank line of several.
func squeeze(lead string) string {
	var b strings.Builder
	blank := false
	for line := range strings.Lines(lead) {
		empty := strings.TrimSpace(line) == ""
		if empty && blank {
			continue
		}
		blank = empty
		b.WriteString(line)
	}
	return b.String()
}

// same reports whether BuildKit reads two texts of an instruction alike.
func same(a, b string, escape rune) bool {
	x, y := dump(a, escape), dump(b, escape)
	return x != "" && x == y
}

func dump(text string, escape rune) string {
	res, err := parser.Parse(strings.NewReader("# escape=" + string(escape) + "\n" + text + "\n"))
	if err != nil || len(res.AST.Children) != 1 {
		return ""
	}
	n := res.AST.Children[0]
	out := n.Dump()
	for _, h := range n.Heredocs {
		out += "\n" + h.Name + "\n" + h.Content
	}
	return out
}

// restoreComments puts p's comments that are missing in q above the step that their own is a part of, or above the next one.
func restoreComments(p, q *plan.Plan) {
	have := map[string]int{}
	each(q, func(s *plan.Step) *plan.Step {
		for _, c := range comments(s) {
			have[c]++
		}
		return s
	})
	lost := map[int][]string{} // by the ID of p's step
	var order []int
	each(p, func(s *plan.Step) *plan.Step {
		for _, c := range comments(s) {
			if have[c] > 0 {
				have[c]--
				continue
			}
			lost[s.ID] = append(lost[s.ID], c)
		}
		order = append(order, s.ID)
		return s
	})
	if len(lost) == 0 {
		return
	}
	place := map[int]int{} // ID in p to ID in q
	each(q, func(s *plan.Step) *plan.Step {
		for _, id := range append(slices.Clone(s.Of), s.ID) {
			if _, ok := place[id]; !ok {
				place[id] = s.ID
			}
		}
		return s
	})
	add := map[int]string{}
	pending, first := "", 0
	for _, id := range order {
		for _, c := range lost[id] {
			pending += c + "\n"
		}
		if to, ok := place[id]; ok && pending != "" {
			add[to] += pending
			pending = ""
		}
	}
	each(q, func(s *plan.Step) *plan.Step {
		if first == 0 {
			first = s.ID
		}
		if add[s.ID] == "" {
			return s
		}
		if s.ID == first { // without the blank line it might be a directive
			return s.WithLead(s.Lead + "\n" + add[s.ID])
		}
		return s.WithLead(s.Lead + add[s.ID])
	})
	if pending != "" {
		q.Tail = strings.TrimSuffix(pending, "\n") + "\n" + strings.Trim(q.Tail, "\x00")
	}
}

// comments are the comment lines of a step, above it and between its lines, without indentation.
func comments(s *plan.Step) (list []string) {
	text := s.Text
	if strings.Contains(text, "<<") { // a heredoc's lines are no comments
		text, _, _ = strings.Cut(text, "\n")
	}
	_, inside, _ := strings.Cut(text, "\n")
	for line := range strings.Lines(s.Lead + inside) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "#") {
			list = append(list, line)
		}
	}
	return list
}
