package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// row is what one build took and gave.
type row struct {
	Title   string
	Seconds float64
	Layers  int
	Bytes   int64 // compressed, all layers
}

func table(rows []row) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "build\tseconds\tlayers\tbytes (compressed)")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%.1f\t%d\t%s\n", r.Title, r.Seconds, r.Layers, thousands(r.Bytes))
	}
	w.Flush()
	return b.String()
}

func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

var (
	stepName = regexp.MustCompile(`(?m)^#(\d+) (\[.*?(\d+)/\d+\] .*)$`)
	stepEnd  = regexp.MustCompile(`(?m)^#(\d+) (CACHED|DONE .*)$`)
	replayed = regexp.MustCompile(`(?m)^#(\d+) [\d.]+ replayed: nothing that it read has changed$`)
	said     = regexp.MustCompile(`(?m)^optbuild: .*$`)
)

// steps picks the Dockerfile's steps out of a plain progress display, each with what it came to, and what optbuild says of the whole: why nothing is replayed, for instance.
func steps(progress string) string {
	ends := map[string]string{}
	for _, m := range stepEnd.FindAllStringSubmatch(progress, -1) {
		ends[m[1]] = m[2] // a step may end more than once; the last is the whole
	}
	for _, m := range replayed.FindAllStringSubmatch(progress, -1) {
		if _, ok := ends[m[1]]; ok {
			ends[m[1]] = "REPLAYED"
		}
	}
	lines := map[int]string{}
	for _, m := range stepName.FindAllStringSubmatch(progress, -1) {
		if n, err := strconv.Atoi(m[3]); err == nil && ends[m[1]] != "" {
			lines[n] = fmt.Sprintf("%-12s %s\n", ends[m[1]], m[2])
		}
	}
	var b strings.Builder
	for _, n := range slices.Sorted(maps.Keys(lines)) {
		b.WriteString(lines[n])
	}
	for _, line := range said.FindAllString(progress, -1) {
		b.WriteString(line + "\n")
	}
	return b.String()
}
