package script

import (
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// Word is one word of a command.
type Word struct {
	Raw     string   // as written
	Value   string   // what the program gets; "" unless Literal
	Literal bool     // the value is known without running anything
	Vars    []string // variables that it expands, in the order of the text

	parts  []syntax.WordPart // to expand; nil if Literal
	hidden bool              // globs, braces or a tilde: the value depends on more than variables
}

// Assign is NAME=value, before a command or alone. A value that is an array or is appended to what was there is not literal.
type Assign struct {
	Name  string
	Value Word
}

// Redirect is one redirection.
type Redirect struct {
	Op      string // ">", ">>", "<", "<<", "<<<", ">&" ...
	FD      string // what stands before the operator, "" for the default
	Target  Word   // file, number, or the heredoc's delimiter
	Heredoc Word   // body of << and <<-
}

// Writes reports whether the redirection opens a file for writing.
func (r Redirect) Writes() bool {
	switch r.Op {
	case ">", ">>", ">|", "<>", "&>", "&>>":
		return true
	case ">&":
		return !(r.Target.Literal && strings.Trim(r.Target.Value, "0123456789-") == "")
	}
	return false
}

func (w *walker) assign(a *syntax.Assign) Assign {
	out := Assign{}
	if a.Name != nil {
		out.Name = a.Name.Value
	}
	switch {
	case a.Array != nil || a.Append || a.Index != nil || a.Naked:
		out.Value = Word{Raw: w.text(w.span(a)), hidden: true}
		out.Value.Vars = variablesIn(a)
	case a.Value != nil:
		out.Value = w.word(a.Value)
		if lit, ok := a.Value.Parts[0].(*syntax.Lit); ok && strings.Contains(lit.Value, ":~") {
			out.Value.Value, out.Value.Literal, out.Value.hidden = "", false, true
		}
	default:
		out.Value = Word{Literal: true}
	}
	return out
}

func (w *walker) redirect(r *syntax.Redirect) Redirect {
	out := Redirect{Op: r.Op.String()}
	if r.N != nil {
		out.FD = r.N.Value
	}
	if r.Word != nil {
		out.Target = w.word(r.Word)
	}
	if r.Hdoc != nil {
		quoted := strings.ContainsAny(out.Target.Raw, `'"\`)
		out.Heredoc = w.heredoc(r.Hdoc, quoted, r.Op == syntax.DashHdoc)
		if body, ok := strings.CutSuffix(out.Heredoc.Raw, out.Target.Value); ok && strings.HasSuffix(body, "\n") {
			out.Heredoc.Raw = body // the parser's node may end with the delimiter
		}
	}
	return out
}

func (w *walker) heredoc(word *syntax.Word, quoted, tabs bool) Word {
	out := Word{Raw: w.text(w.span(word))}
	var b strings.Builder
	for _, p := range word.Parts {
		lit, ok := p.(*syntax.Lit)
		if !ok {
			out.hidden, out.Vars = true, variablesIn(word)
			return out
		}
		if quoted {
			b.WriteString(lit.Value)
		} else {
			b.WriteString(unescape(lit.Value, "$`\\"))
		}
	}
	out.Value, out.Literal = b.String(), true
	if tabs {
		out.Value = strings.ReplaceAll("\n"+out.Value, "\n\t", "\n")
		for strings.Contains(out.Value, "\n\t") {
			out.Value = strings.ReplaceAll(out.Value, "\n\t", "\n")
		}
		out.Value = out.Value[1:]
	}
	return out
}

// word resolves the quotes. What sh and bash read differently ($'a', braces) is not literal in either.
func (w *walker) word(word *syntax.Word) Word {
	out := Word{Raw: w.text(w.span(word))}
	if value, ok := simpleLiteral(word); ok {
		out.Value, out.Literal = value, true
		return out
	}
	if hidden(word.Parts) {
		out.hidden = true
	}
	value, ok := expand(word.Parts, false, nil)
	if ok && !out.hidden {
		out.Value, out.Literal = value, true
		return out
	}
	out.Vars, out.parts = variablesIn(word), word.Parts
	return out
}

// simpleLiteral is the usual case: one literal without anything special.
func simpleLiteral(word *syntax.Word) (string, bool) {
	if len(word.Parts) != 1 {
		return "", false
	}
	switch p := word.Parts[0].(type) {
	case *syntax.Lit:
		return p.Value, !strings.ContainsAny(p.Value, "\\*?[{~$")
	case *syntax.SglQuoted:
		return p.Value, !p.Dollar
	}
	return "", false
}

// hidden reports globs, braces and tildes. Quoted characters are replaced by one that means nothing before the word is looked at.
func hidden(parts []syntax.WordPart) bool {
	var b strings.Builder
	for i, p := range parts {
		switch p := p.(type) {
		case *syntax.Lit:
			text := p.Value
			if (len(text)-len(strings.TrimRight(text, `\`)))%2 == 1 {
				return true // at the end of the text: dash keeps it, bash does not
			}
			for j := 0; j < len(text); j++ {
				if text[j] == '\\' {
					j++
					b.WriteByte('_')
					continue
				}
				b.WriteByte(text[j])
			}
			if strings.HasSuffix(text, "$") && i+1 < len(parts) {
				return true // $'a' and $"a", to a POSIX parser
			}
		case *syntax.SglQuoted:
			if p.Dollar && strings.Contains(p.Value, `\`) {
				return true
			}
			b.WriteByte('_')
		case *syntax.DblQuoted:
			if p.Dollar {
				return true
			}
			b.WriteByte('_')
		case *syntax.ParamExp:
			b.WriteByte('_')
		default:
			return true
		}
	}
	text := b.String()
	if strings.ContainsAny(text, "*?") || strings.HasPrefix(text, "~") || strings.Contains(text, "=~") || strings.Contains(text, ":~") {
		return true
	}
	if _, after, ok := strings.Cut(text, "["); ok && strings.Contains(after, "]") {
		return true
	}
	if _, after, ok := strings.Cut(text, "{"); ok {
		if i := strings.LastIndexByte(after, '}'); i >= 0 && (strings.Contains(after[:i], ",") || strings.Contains(after[:i], "..")) {
			return true
		}
	}
	return false
}

// Expand gives the value with the variables that lookup knows. A variable that lookup does not know, an unquoted one whose
// value would be split or globbed (or vanish), a substitution or a pattern: no value.
func (w Word) Expand(lookup func(name string) (value string, known bool)) (string, bool) {
	if w.Literal {
		return w.Value, true
	}
	if w.hidden || w.parts == nil {
		return "", false
	}
	return expand(w.parts, false, lookup)
}

func expand(parts []syntax.WordPart, quoted bool, lookup func(string) (string, bool)) (string, bool) {
	var b strings.Builder
	for _, p := range parts {
		switch p := p.(type) {
		case *syntax.Lit:
			if quoted {
				b.WriteString(unescape(p.Value, "$`\"\\"))
			} else {
				b.WriteString(unescape(p.Value, ""))
			}
		case *syntax.SglQuoted:
			if p.Dollar && strings.Contains(p.Value, `\`) {
				return "", false
			}
			b.WriteString(p.Value)
		case *syntax.DblQuoted:
			value, ok := expand(p.Parts, true, lookup)
			if !ok || p.Dollar {
				return "", false
			}
			b.WriteString(value)
		case *syntax.ParamExp:
			value, ok := expandParam(p, lookup)
			if !ok || !quoted && (value == "" || strings.ContainsAny(value, " \t\n*?[\\~{")) {
				return "", false
			}
			b.WriteString(value)
		default:
			return "", false
		}
	}
	return b.String(), true
}

// expandParam knows $a, ${a}, ${a:-word} and ${a:+word}.
func expandParam(p *syntax.ParamExp, lookup func(string) (string, bool)) (string, bool) {
	if lookup == nil || p.Param == nil || !syntax.ValidName(p.Param.Value) ||
		p.Excl || p.Length || p.Width || p.IsSet || p.NestedParam != nil || p.Flags != nil ||
		p.Index != nil || p.Slice != nil || p.Repl != nil || p.Names != 0 || len(p.Modifiers) > 0 {
		return "", false
	}
	value, known := lookup(p.Param.Value)
	if !known || p.Exp == nil {
		return value, known
	}
	word := func() (string, bool) {
		if p.Exp.Word == nil {
			return "", true
		}
		if hidden(p.Exp.Word.Parts) {
			return "", false
		}
		return expand(p.Exp.Word.Parts, false, lookup)
	}
	switch {
	case p.Exp.Op == syntax.DefaultUnsetOrNull && value == "", p.Exp.Op == syntax.AlternateUnsetOrNull && value != "":
		return word()
	case p.Exp.Op == syntax.DefaultUnsetOrNull:
		return value, true
	case p.Exp.Op == syntax.AlternateUnsetOrNull:
		return "", true
	}
	return "", false
}

// unescape removes the backslashes before the given characters, before all if none are given.
func unescape(s, special string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && (special == "" || strings.IndexByte(special, s[i+1]) >= 0) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
