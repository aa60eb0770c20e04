package lint

import (
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"

	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/script"
)

// check is a run of the rules over one file.
type check struct {
	p        *plan.Plan
	f        *plan.Facts
	rule     *Rule
	findings []Finding
	lint     *linter.Linter // what `# check=` in the head skips
	strict   bool

	target  []*plan.Stage // the stages whose steps are in the target's image, first the one that starts from an image
	states  map[*plan.Stage][]plan.State
	scripts map[*plan.Step]*script.Script // of RUNs whose text is known
	stage   map[*plan.Step]*plan.Stage
}

func newCheck(p *plan.Plan, f *plan.Facts) (*check, error) {
	c := &check{p: p, f: f, states: map[*plan.Stage][]plan.State{}, scripts: map[*plan.Step]*script.Script{}, stage: map[*plan.Step]*plan.Stage{}}
	var err error
	if c.lint, c.strict, err = directives(p); err != nil {
		return nil, err
	}
	for _, st := range p.Stages {
		c.states[st] = p.Flow(st, f)
		c.stage[st.From] = st
		for i, s := range st.Steps {
			c.stage[s] = st
			run, ok := s.Cmd.(*instructions.RunCommand)
			if !ok || windows(c.base(st)) {
				continue
			}
			sc, err := script.OfRun(run, c.states[st][i].Shell)
			var syntax *script.SyntaxError
			if errors.As(err, &syntax) { // on many images /bin/sh is bash
				sc, err = script.OfRun(run, []string{"/bin/bash", "-c"})
			}
			if err == nil {
				c.scripts[s] = sc
			}
		}
	}
	for st := p.Target(f); st != nil; {
		c.target = append([]*plan.Stage{st}, c.target...)
		st, _, _ = p.Resolve(st, f)
	}
	return c, nil
}

// base is the image that a stage starts from, by way of other stages, "" if it is not known.
func (c *check) base(st *plan.Stage) string {
	for {
		next, image, ok := c.p.Resolve(st, c.f)
		if !ok {
			return ""
		}
		if next == nil {
			return image
		}
		st = next
	}
}

// windows reports whether the image's shell is none that is known here.
func windows(image string) bool {
	return strings.Contains(image, "windows") || strings.Contains(image, "nanoserver")
}

// runs calls f for each RUN of a stage whose text is known.
func (c *check) runs(st *plan.Stage, f func(s *plan.Step, sc *script.Script)) {
	for _, s := range st.Steps {
		if sc := c.scripts[s]; sc != nil {
			f(s, sc)
		}
	}
}

// report adds a finding of the rule at work, at the place of the text in the step; the text may be "".
func (c *check) report(s *plan.Step, text string, f Finding) {
	if c.skipped(s) {
		return
	}
	f.Rule, f.URL, f.File = c.rule.Name, c.rule.page(), c.p.Name
	if f.Severity == 0 {
		f.Severity = c.rule.Severity
	}
	f.Range = place(s, text)
	c.findings = append(c.findings, f)
}

// skipped reports whether a `# check=skip=` in the file's head, above the stage or above the step switches the rule off.
func (c *check) skipped(s *plan.Step) bool {
	l := c.lint
	if st := c.stage[s]; st != nil {
		l = l.WithMergedConfigFromComments(st.Def.Comments)
	}
	if s.Cmd != nil {
		l = l.WithMergedConfigFromComments(s.Cmd.Comments())
	}
	_, skip := l.SkippedRules[c.rule.Name]
	return skip || l.SkipAll
}

// place finds a text in a step. If it is not there as it is, since the shell's text has the lines joined, its first words are looked for.
func place(s *plan.Step, text string) Range {
	whole := Range{Line: s.Lines.First, EndLine: s.Lines.Last}
	for _, needle := range needles(text) {
		i := strings.Index(s.Text, needle)
		if i < 0 {
			continue
		}
		before := s.Text[:i]
		line := s.Lines.First + strings.Count(before, "\n")
		start := utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1
		return Range{Line: line, Column: start, EndLine: line, EndColumn: start + utf8.RuneCountInString(needle)}
	}
	return whole
}

// needles are what may be found of a text on one line: all of it, its first two words, its first one.
func needles(text string) (list []string) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil
	}
	if !strings.Contains(text, "\n") {
		list = append(list, text)
	}
	words := strings.Fields(text)
	for n := min(len(words), 2); n > 0; n-- {
		list = append(list, strings.Join(words[:n], " "))
	}
	return list
}

// copies are what COPY and ADD take from the context.
type contextCopy struct {
	step    *plan.Step
	sources []string // expanded, relative to the context, "." for all of it
	exclude []string
}

// copies lists a stage's COPY and ADD from the context; sources that are not known are left out.
func (c *check) copies(st *plan.Stage) (list []contextCopy) {
	for i, s := range st.Steps {
		var src, exclude []string
		switch cmd := s.Cmd.(type) {
		case *instructions.CopyCommand:
			if cmd.From != "" {
				continue
			}
			src, exclude = cmd.SourcePaths, cmd.ExcludePatterns
		case *instructions.AddCommand:
			src, exclude = cmd.SourcePaths, cmd.ExcludePatterns
		default:
			continue
		}
		cc := contextCopy{step: s, exclude: exclude}
		for _, word := range src {
			if name, ok := c.states[st][i].Expand(word); ok && !remote(name) {
				cc.sources = append(cc.sources, contextPath(name))
			}
		}
		if len(cc.sources) > 0 {
			list = append(list, cc)
		}
	}
	return list
}

// everyStep calls f for each step of each stage, FROM excluded.
func (c *check) everyStep(f func(st *plan.Stage, i int, s *plan.Step)) {
	for _, st := range c.p.Stages {
		for i, s := range st.Steps {
			f(st, i, s)
		}
	}
}

// inTarget reports whether the stage's steps are in the target's image.
func (c *check) inTarget(st *plan.Stage) bool { return slices.Contains(c.target, st) }
