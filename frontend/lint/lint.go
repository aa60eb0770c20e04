// Package lint finds what is wrong with a Dockerfile though it builds.
//
// In come a plan and facts; out come findings: those of BuildKit's own linter, asked without a registry, and those of our rules, with the same
// `# check=` directives. A rule is a row of a table with a stable name and a heading in this folder's README. Rules do no I/O.
//
// Few false alarms count more than many rules: a rule is silent where a value, an image or a shell text is not known.
//
//	plan, facts ──> BuildKit's linter ──┐
//	            └─> our rules ──────────┴──> findings ──> Text, JSON, SARIF
package lint

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/optbuild/optbuild/frontend/plan"
)

// Severity is how bad a finding is. A greater one is worse.
type Severity int

const (
	Info    Severity = iota + 1 // worth knowing
	Warning                     // should be changed, or said to be meant with `# check=skip=`
	Error                       // must not be built like this
)

var severities = map[Severity]string{Info: "info", Warning: "warning", Error: "error"}

func (s Severity) String() string { return severities[s] }

// MarshalText writes the name.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a name.
func (s *Severity) UnmarshalText(b []byte) error {
	for v, name := range severities {
		if name == string(b) {
			*s = v
			return nil
		}
	}
	return fmt.Errorf("unknown severity %q: want error, warning or info", b)
}

// Rule is a row of the table.
type Rule struct {
	Name     string   // stable: users name it in `# check=skip=`
	Severity Severity // of its findings, unless they say otherwise
	Summary  string   // one line: what the rule is about
	URL      string   // where it is described

	run func(*check)
}

// Finding is one thing that a rule has found.
type Finding struct {
	Rule     string   `json:"rule"`
	Severity Severity `json:"severity"`
	Message  string   `json:"message"`          // a sentence, without final stop
	Remedy   string   `json:"remedy,omitempty"` // what to do, likewise
	URL      string   `json:"url,omitempty"`
	File     string   `json:"file"`
	Range    Range    `json:"range"`
	Fix      *Fix     `json:"fix,omitempty"`

	summary string // what the rule is about, if it is BuildKit's
	secret  bool   // what the range covers must not be shown
}

// Range is a place in the Dockerfile. Lines and columns count from 1, columns in characters; the end column is behind the last one. Columns
// are 0 where only the lines are known.
type Range struct {
	Line      int `json:"line"`
	Column    int `json:"column,omitempty"`
	EndLine   int `json:"endLine"`
	EndColumn int `json:"endColumn,omitempty"`
}

// Fix is a file that would mend it.
type Fix struct {
	File    string `json:"file"` // relative to the context
	Content string `json:"content"`
}

// Run checks the Dockerfile of a plan. ignore is the text of the ignore file that holds for it. Findings are sorted by place.
func Run(ctx context.Context, p *plan.Plan, f *plan.Facts, ignore string) ([]Finding, error) {
	c, err := newCheck(p, f)
	if err != nil {
		return nil, err
	}
	if err := c.buildkit(ctx, ignore); err != nil {
		return nil, err
	}
	for i := range rules {
		c.rule = &rules[i]
		if c.rule.run != nil {
			c.rule.run(c)
		}
	}
	if c.strict {
		for i := range c.findings {
			c.findings[i].Severity = max(c.findings[i].Severity, strictly(c.findings[i].Severity))
		}
	}
	slices.SortStableFunc(c.findings, func(a, b Finding) int {
		return cmp.Or(a.Range.Line-b.Range.Line, a.Range.Column-b.Range.Column, cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Message, b.Message))
	})
	return slices.CompactFunc(c.findings, func(a, b Finding) bool {
		return a.Rule == b.Rule && a.Message == b.Message && a.Range == b.Range
	}), nil
}

// strictly is a severity under `# check=error=true`.
func strictly(s Severity) Severity {
	if s == Warning {
		return Error
	}
	return s
}

// AtLeast are the findings of a severity or worse.
func AtLeast(list []Finding, s Severity) (out []Finding) {
	for _, f := range list {
		if f.Severity >= s {
			out = append(out, f)
		}
	}
	return out
}

// directives reads `# check=` from the head of the file.
func directives(p *plan.Plan) (*linter.Linter, bool, error) {
	line, _, _, _ := parser.ParseDirective("check", p.Source)
	config, err := linter.ParseLintOptions(line)
	if err != nil {
		return nil, false, fmt.Errorf("%s: # check=%s: %w", p.Name, line, err)
	}
	return linter.New(config), config.ReturnAsError, nil
}
