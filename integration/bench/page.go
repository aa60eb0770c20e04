package main

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"os"
	"strings"
	"time"
)

//go:embed page.tmpl
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// page is what the template shows. Plots are placed here, so that the template has no arithmetic: in pixels of SVG.
type page struct {
	When, Machine string
	Grids         []gridTable
	Cells         []cellPlot
	Ratios        *ratioPlot
}

// gridTable is the matrix of one figure.
type gridTable struct {
	Figure, Unit, Subject string
	Sides                 []string
	Rows                  []gridTableRow
}

type gridTableRow struct {
	Name, Subject string
	Cells         []gridTableCell
}

// gridTableCell is a ratio, and in which colour it stands: "less", "more", "open".
type gridTableCell struct{ Text, Claim, Interval string }

// cellPlot shows the time of each single build of a cell.
type cellPlot struct {
	Name, What, Anchor string
	Load               string
	Height             int
	Ticks              []plotTick
	Sides              []plotSide
	Figures            []string
}

type plotTick struct {
	X     float64
	Label string
}

type plotSide struct {
	Name   string
	Y      int
	Points []float64
	Median float64
	Label  string
	Ours   bool
	Values []string // medians of figures
}

// ratioPlot shows ratios of cases that have one thing to compare with, with their intervals, on a logarithmic scale.
type ratioPlot struct {
	Height int
	Ticks  []plotTick
	Rows   []ratioRow
}

type ratioRow struct {
	Name         string
	Y            int
	X, Low, High float64
	Bound        float64 // 0: none
	Label, Claim string
	HasInterval  bool
}

const (
	plotLeft, plotWidth = 230, 520 // the names are left of it, the labels right
	plotRow             = 22
)

// writePage writes one page that needs nothing else.
func writePage(path string, entries []entry) error {
	var text strings.Builder
	if err := pageTemplate.Execute(&text, pageOf(entries)); err != nil {
		return err
	}
	if err := makeParents(path); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text.String()), 0o644)
}

func pageOf(entries []entry) page {
	p := page{Machine: machineName()}
	var last time.Time
	var single []Result
	for _, e := range entries {
		if e.Time.After(last) {
			last = e.Time
		}
		if e.Builds == nil {
			single = append(single, e.Results...)
			continue
		}
		p.Cells = append(p.Cells, e.plot())
	}
	p.When = last.Format(time.DateTime) + " UTC"
	for _, figure := range figureColumns {
		if g := gridOf(entries, figure.name); len(g.sides) > 0 {
			p.Grids = append(p.Grids, g.table(figure.unit))
		}
	}
	p.Ratios = plotRatios(append(single, watchedOverall(single)...))
	return p
}

func (g grid) table(unit string) gridTable {
	t := gridTable{Figure: g.figure, Unit: unit, Subject: subject, Sides: g.sides}
	for _, row := range g.rows {
		r := gridTableRow{Name: row.Case, Subject: figure(row.subject)}
		for _, s := range g.sides {
			ratio := row.ratios[s]
			claim := "open"
			if ratio.Ratio > 0 && ratio.claim() != claimOpen {
				claim = "more"
				if ratio.Ratio < 1 {
					claim = "less"
				}
			}
			r.Cells = append(r.Cells, gridTableCell{ratio.cell(), claim, ratio.interval()})
		}
		t.Rows = append(t.Rows, r)
	}
	return t
}

func (e entry) plot() cellPlot {
	c := cellPlot{Name: e.Case, What: e.What, Anchor: strings.ReplaceAll(e.Case, " ", "-"), Load: fmt.Sprintf("%.1f", e.Load)}
	most := 0.0
	for _, f := range e.Builds {
		most = max(most, f.Seconds)
	}
	scale, ticks := linear(most)
	c.Ticks = ticks
	for _, column := range figureColumns {
		c.Figures = append(c.Figures, column.name+", "+column.unit)
	}
	for i, name := range sidesOf(e.Builds) {
		s := plotSide{Name: name, Y: plotRow*i + plotRow/2, Ours: name == subject}
		times := valuesOf(e.Builds, name, figureColumns[0].of)
		for _, v := range times {
			s.Points = append(s.Points, scale(v))
		}
		s.Median, s.Label = scale(median(times)), figure(median(times))+" s"
		for _, r := range e.Results {
			if r.Against == name && r.Case == e.Case+", time" && r.Ratio > 0 {
				s.Label += fmt.Sprintf(" · ratio %s", r.cell())
			}
		}
		for _, column := range figureColumns {
			s.Values = append(s.Values, figure(median(valuesOf(e.Builds, name, column.of))))
		}
		c.Sides = append(c.Sides, s)
	}
	c.Height = plotRow*len(c.Sides) + 24
	return c
}

// linear is a scale from 0 to at least most, with ticks at round numbers.
func linear(most float64) (func(float64) float64, []plotTick) {
	if most <= 0 {
		most = 1
	}
	step := math.Pow(10, math.Floor(math.Log10(most)))
	for _, part := range []float64{0.1, 0.2, 0.5, 1} {
		if most/(step*part) <= 8 {
			step *= part
			break
		}
	}
	scale := func(v float64) float64 { return plotLeft + v/most*plotWidth }
	var ticks []plotTick
	for i := 0; float64(i)*step <= most*1.0001; i++ {
		ticks = append(ticks, plotTick{scale(float64(i) * step), fmt.Sprintf("%.4g", float64(i)*step)})
	}
	return scale, ticks
}

func plotRatios(results []Result) *ratioPlot {
	const least, most = 1.0 / 32, 8.0
	scale := func(v float64) float64 {
		v = min(max(v, least), most)
		return plotLeft + 120 + math.Log2(v/least)/math.Log2(most/least)*(plotWidth-120)
	}
	p := &ratioPlot{}
	for _, r := range results {
		if r.Stock == 0 || r.Ratio == 0 {
			continue
		}
		row := ratioRow{Name: r.Case, Y: plotRow*len(p.Rows) + plotRow/2, X: scale(r.Ratio), Claim: cmp.Or(r.claim(), claimOpen),
			Label: fmt.Sprintf("%.2f of %s (%s %s)", r.Ratio, cmp.Or(r.Against, "stock"), figure(r.Optbuild), r.Unit)}
		if r.Low > 0 && r.High > 0 {
			row.HasInterval, row.Low, row.High = true, scale(r.Low), scale(r.High)
		}
		if r.Bound > 0 {
			row.Bound = scale(r.Bound)
		}
		p.Rows = append(p.Rows, row)
	}
	if len(p.Rows) == 0 {
		return nil
	}
	for v := least; v <= most; v *= 2 {
		label := fmt.Sprintf("%g", v)
		if v < 1 {
			label = fmt.Sprintf("1/%g", 1/v)
		}
		p.Ticks = append(p.Ticks, plotTick{scale(v), label})
	}
	p.Height = plotRow*len(p.Rows) + 24
	return p
}
