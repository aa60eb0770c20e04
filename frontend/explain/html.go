package explain

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"

	"github.com/docker/go-units"

	"github.com/optbuild/optbuild/frontend/opt"
	"github.com/optbuild/optbuild/frontend/plan"
)

var (
	//go:embed page.tmpl
	pageSource string
	//go:embed page.css
	pageStyle string
	//go:embed page.js
	pageScript string
)

// page is what the template shows.
type page struct {
	File, Summary, Built, Aside, Facts string
	Culprit, Error                     string
	Policy                             string // what a browser may load and run: this page's own style and script
	Style                              template.CSS
	Script                             template.JS
	Versions                           []pageVersion
	Others                             []pageVersion // passes that changed nothing and said something, without rows
	Missed                             []pageRemark
}

type pageVersion struct {
	Title, Doc, Order, Keeps string
	Rows                     []pageRow
	Remarks                  []pageRemark
}

type pageRow struct {
	Of, Lines, Lead, Text, Took string
	Made                        bool // by this pass
}

type pageRemark struct {
	Class, Of, Lines, Name, Message, Took, Seconds string
	Kind                                           opt.Kind
	Args                                           []opt.Arg
	Residue                                        []string
}

// HTML writes one page that stands alone: the Dockerfile as it was written and after each pass that changed it, side by side, each with its
// remarks. Without scripts it is a page to read; with them, a click on a step lights it wherever it appears.
func HTML(w io.Writer, a *Account) error {
	t, err := template.New("page").Parse(pageSource)
	if err != nil {
		return fmt.Errorf("parse the page's template: %w", err)
	}
	p := page{
		File: a.File, Culprit: a.Culprit(), Error: a.Error, Aside: a.Aside, Facts: a.FactsLine(), Built: a.built(),
		Policy: "default-src 'none'; style-src " + source(pageStyle) + "; script-src " + source(pageScript),
		Style:  template.CSS(pageStyle), Script: template.JS(pageScript),
	}
	p.Summary = fmt.Sprintf("--optimize=%s: %d done, %d not done, %d worth knowing", a.Level, len(a.Of(opt.Passed)), len(a.Of(opt.Missed)), len(a.Of(opt.Analysis)))
	known := map[int]bool{}
	for i, v := range a.Versions {
		info := a.pass(v.Pass)
		pv := pageVersion{Title: "after " + v.Pass, Doc: info.Doc, Order: info.Order, Keeps: info.Keeps.String(), Remarks: a.remarksOf(v.Pass)}
		if i == 0 {
			pv = pageVersion{Title: "as it was written"}
		}
		for _, r := range v.Rows {
			pr := pageRow{Of: numbers(r.Origins()), Lines: lineRange(r.Lines), Lead: Visible(r.Lead), Text: Visible(r.Text), Made: i > 0 && r.ID != 0 && !known[r.ID]}
			if i == len(a.Versions)-1 {
				pr.Took = took(a.Measured[r.ID])
			}
			known[r.ID] = true
			pv.Rows = append(pv.Rows, pr)
		}
		p.Versions = append(p.Versions, pv)
	}
	for _, pass := range a.Passes {
		changed := slices.ContainsFunc(a.Versions, func(v Version) bool { return v.Pass == pass.Name })
		if remarks := a.remarksOf(pass.Name); !changed && remarks != nil {
			p.Others = append(p.Others, pageVersion{Title: pass.Name, Doc: pass.Doc, Remarks: remarks})
		}
	}
	for _, r := range a.Of(opt.Missed) {
		p.Missed = append(p.Missed, a.pageRemark(r))
	}
	return t.Execute(w, p)
}

// source allows a browser to use a text that is in the page.
func source(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func (a *Account) remarksOf(pass string) (list []pageRemark) {
	for _, r := range a.Remarks {
		if r.Pass == pass {
			list = append(list, a.pageRemark(r))
		}
	}
	return list
}

func (a *Account) pageRemark(r opt.Remark) pageRemark {
	p := pageRemark{
		Class: string(r.Kind), Kind: r.Kind, Of: numbers(a.about(r)), Lines: lineRange(r.Lines), Name: r.Pass + "/" + r.Name,
		Message: r.Message, Args: r.Args, Residue: r.Residue, Seconds: Seconds(r.Seconds),
	}
	if r.Warning {
		p.Class = "warning"
	}
	if r.Kind == opt.Missed && r.Seconds > 0 {
		p.Took = p.Seconds
	}
	return p
}

func numbers(ids []int) string { return strings.Trim(fmt.Sprint(ids), "[]") }

func lineRange(l plan.Lines) string {
	switch {
	case l.First == 0:
		return ""
	case l.Last > l.First:
		return fmt.Sprintf("%d-%d", l.First, l.Last)
	}
	return fmt.Sprint(l.First)
}

// took is what a step took, for people: "ran 1.5s 20MB", "cached".
func took(m Measure) string {
	parts := []string{m.State}
	switch {
	case m.State == Cached && m.Seconds > 0:
		parts = append(parts, "(last ran "+Seconds(m.Seconds)+")")
	case m.Seconds > 0:
		parts = append(parts, Seconds(m.Seconds))
	}
	if m.Bytes > 0 {
		parts = append(parts, units.HumanSize(float64(m.Bytes)))
	}
	return strings.TrimSpace(strings.Join(parts, " "))
}

// built sums up what a build did, "" if this is not about a build.
func (a *Account) built() string {
	var ran, cached int
	var seconds float64
	for _, row := range a.Last().Rows {
		switch m := a.Measured[row.ID]; m.State {
		case Ran:
			ran++
			seconds += m.Seconds
		case Cached:
			cached++
		}
	}
	if ran+cached == 0 {
		return ""
	}
	return fmt.Sprintf("In this build %d steps ran (%s of work) and %d were cached.", ran, Seconds(seconds), cached)
}
