package lint

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Text writes findings for people, with the lines that they are about.
//
//	Dockerfile:2:5: warning: AptListsKept: the package lists that this fetches stay in the image: 20 to 80 MB
//	  2 | RUN apt-get update && apt-get install -y curl
//	    |     ^^^^^^^^^^^^^^
//	  remedy: end the same RUN with && rm -rf /var/lib/apt/lists/*
//	  https://...
func Text(w io.Writer, list []Finding, source []byte) error {
	var b strings.Builder
	lines := strings.Split(string(source), "\n")
	n := map[Severity]int{}
	for _, f := range list {
		n[f.Severity]++
		fmt.Fprintf(&b, "%s: %s: %s: %s\n", f.position(), f.Severity, f.Rule, f.Message)
		excerpt(&b, f, lines)
		if f.Remedy != "" {
			fmt.Fprintf(&b, "  remedy: %s\n", f.Remedy)
		}
		if f.Fix != nil {
			fmt.Fprintf(&b, "  %s:\n", f.Fix.File)
			for line := range strings.Lines(f.Fix.Content) {
				fmt.Fprintf(&b, "    %s\n", strings.TrimSuffix(line, "\n"))
			}
		}
		if f.URL != "" {
			fmt.Fprintf(&b, "  %s\n", f.URL)
		}
		b.WriteByte('\n')
	}
	var counts []string
	for _, s := range []Severity{Error, Warning, Info} {
		switch {
		case n[s] == 0:
		case n[s] == 1 || s == Info:
			counts = append(counts, fmt.Sprintf("%d %s", n[s], s))
		default:
			counts = append(counts, fmt.Sprintf("%d %ss", n[s], s))
		}
	}
	if len(counts) > 0 {
		fmt.Fprintln(&b, strings.Join(counts, ", "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (f *Finding) position() string {
	if f.Range.Column > 0 {
		return fmt.Sprintf("%s:%d:%d", f.File, f.Range.Line, f.Range.Column)
	}
	return fmt.Sprintf("%s:%d", f.File, f.Range.Line)
}

// excerpt writes the finding's first line with a mark below what it is about.
func excerpt(b *strings.Builder, f Finding, lines []string) {
	if f.Range.Line < 1 || f.Range.Line > len(lines) {
		return
	}
	line := []rune(strings.TrimRight(lines[f.Range.Line-1], "\r"))
	from, to := f.Range.Column-1, min(f.Range.EndColumn-1, len(line))
	if f.secret {
		line = hide(line, from, to)
	}
	line = hideTokens(line)
	number := fmt.Sprint(f.Range.Line)
	fmt.Fprintf(b, "  %s | %s\n", number, string(line))
	if from < 0 || from >= to {
		return
	}
	fmt.Fprintf(b, "  %s | ", strings.Repeat(" ", len(number)))
	for _, r := range line[:from] {
		if r != '\t' {
			r = ' '
		}
		b.WriteRune(r)
	}
	b.WriteString(strings.Repeat("^", to-from) + "\n")
}

// assigned is a value that ENV or ARG gives to a name that looks like a secret's.
var assigned = lazily(`(?i)([A-Z0-9_]*(?:PASSWORD|PASSWD|PWORD|SECRET|TOKEN|KEY|CREDENTIALS?|AUTH)[A-Z0-9_]*[= ])("[^"]*"|'[^']*'|[^\s$"']+)`)

// hideTokens hides what looks like a secret, whatever the finding is about: logs of CI are read by many. The line keeps its length.
func hideTokens(line []rune) []rune {
	s := string(line)
	if strings.HasPrefix(strings.ToUpper(strings.TrimSpace(s)), "ENV ") || strings.HasPrefix(strings.ToUpper(strings.TrimSpace(s)), "ARG ") {
		s = assigned().ReplaceAllStringFunc(s, func(m string) string {
			name := assigned().FindStringSubmatch(m)[1]
			return name + stars(m[len(name):])
		})
	}
	for _, t := range tokens {
		s = t.form().ReplaceAllStringFunc(s, func(m string) string { return m[:min(4, len(m))] + stars(m[min(4, len(m)):]) })
	}
	s = address().ReplaceAllStringFunc(s, func(m string) string {
		i := strings.LastIndexByte(m, ':') + 1
		return m[:i] + stars(m[i:len(m)-1]) + "@"
	})
	return []rune(s)
}

func stars(s string) string { return strings.Repeat("*", utf8.RuneCountInString(s)) }

// hide leaves the first characters of a secret; of one whose place is not known, only the instruction.
func hide(line []rune, from, to int) []rune {
	if from < 0 || from >= to {
		word, _, _ := strings.Cut(string(line), " ")
		return []rune(word + " ****")
	}
	line = append([]rune(nil), line...)
	for i := min(from+4, to); i < to; i++ {
		line[i] = '*'
	}
	return line
}
