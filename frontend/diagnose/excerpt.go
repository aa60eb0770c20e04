package diagnose

import (
	"fmt"
	"strings"
)

// How much of a Dockerfile an excerpt shows.
const (
	linesAround   = 2
	linesMarked   = 16 // of an instruction with more lines, the middle is left out
	linesEnd      = 4  // of these, so many at the end
	excerptColumn = 160
)

// Excerpt shows some lines of a text, and a few around them, with their numbers and a mark.
func Excerpt(source []byte, first, last int) string {
	lines := strings.Split(strings.TrimSuffix(string(source), "\n"), "\n")
	if first < 1 || first > len(lines) {
		return ""
	}
	last = min(last, len(lines))
	from, to := max(1, first-linesAround), min(len(lines), last+linesAround)
	width := len(fmt.Sprint(to))
	var b strings.Builder
	for n := from; n <= to; n++ {
		if last-first+1 > linesMarked && n == first+linesMarked-linesEnd {
			fmt.Fprintf(&b, "> %*s | (%d lines)\n", width, "…", last-first+1-linesMarked)
			n = last - linesEnd + 1
		}
		mark := " "
		if n >= first && n <= last {
			mark = ">"
		}
		line := strings.TrimRight(lines[n-1], "\r")
		if r := []rune(line); len(r) > excerptColumn {
			line = string(r[:excerptColumn]) + "…"
		}
		b.WriteString(strings.TrimRight(fmt.Sprintf("%s %*d | %s", mark, width, n, line), " ") + "\n")
	}
	return b.String()
}
