package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// printTable prints the cases that have one thing to compare with.
func printTable(out io.Writer, results []Result) {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "case\toptbuild\tother\tunit\tagainst\tratio\t±\t95 %\tbest\tworst\tbound\tclaim\truns\t")
	for _, r := range results {
		ratio, best, worst, other, against := "", "", "", "", ""
		if r.Stock > 0 {
			ratio, best, worst = fmt.Sprintf("%.2f", r.Ratio), fmt.Sprintf("%.2f", r.Best), fmt.Sprintf("%.2f", r.Worst)
			other, against = figure(r.Stock), cmp.Or(r.Against, "stock")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%.2f\t%s\t%s\t%s\t%s\t%s\t%d\t\n",
			r.Case, figure(r.Optbuild), other, r.Unit, against, ratio, r.Spread/2, r.interval(), best, worst, r.bound(), r.claim(), r.Runs)
	}
	w.Flush()
}

// grid is the matrix: a row for each cell, a column for each side that optbuild is compared with.
type grid struct {
	figure string
	sides  []string
	rows   []gridRow
}

type gridRow struct {
	entry
	subject float64 // median of optbuild with the naive Dockerfile
	ratios  map[string]Result
}

// gridOf is the matrix of one figure.
func gridOf(entries []entry, figure string) (g grid) {
	g.figure = figure
	for _, e := range entries {
		if e.Builds == nil {
			continue
		}
		row := gridRow{entry: e, ratios: map[string]Result{}}
		for _, r := range e.Results {
			if r.Case != e.Case+", "+figure {
				continue
			}
			row.subject, row.ratios[r.Against] = r.Optbuild, r
			if !slices.Contains(g.sides, r.Against) {
				g.sides = append(g.sides, r.Against)
			}
		}
		g.rows = append(g.rows, row)
	}
	slices.SortFunc(g.sides, compareSides)
	return g
}

// cell is a ratio. One without a claim is in brackets.
func (r Result) cell() string {
	switch {
	case r.Case == "" || r.Ratio == 0:
		return "–"
	case r.claim() == claimOpen:
		return fmt.Sprintf("(%.2f)", r.Ratio)
	}
	return fmt.Sprintf("%.2f", r.Ratio)
}

// printMatrix prints ratios of times and of processor times.
func printMatrix(out io.Writer, entries []entry) {
	for _, figure := range figureColumns[:2] {
		g := gridOf(entries, figure.name)
		if len(g.sides) == 0 {
			continue
		}
		fmt.Fprintf(out, "\n%s of %s, and its ratio to that of others; in brackets: no claim, the interval includes 1\n", figure.name, subject)
		w := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintf(w, "case\t%s\t", figure.unit)
		for _, s := range g.sides {
			fmt.Fprintf(w, "%s\t", s)
		}
		fmt.Fprint(w, "runs\tload\t\n")
		for _, row := range g.rows {
			fmt.Fprintf(w, "%s\t%.2f\t", row.Case, row.subject)
			for _, s := range g.sides {
				fmt.Fprintf(w, "%s\t", row.ratios[s].cell())
			}
			fmt.Fprintf(w, "%d\t%.1f\t\n", len(valuesOf(row.Builds, subject, figure.of)), row.Load)
		}
		w.Flush()
	}
}
