// Package plan is the compiler's intermediate form: a Dockerfile as stages of steps that passes rewrite.
//
// Parse makes a plan of the user's bytes; Text makes a Dockerfile of a plan, with a map from its lines to the user's. A step
// that no pass touched prints as the user wrote it, byte for byte, so a plan that nobody changed prints as its source, and
// BuildKit's own dockerfile2llb, which lowers the text, sees what it would have seen.
//
// Terms: a *stage* begins at FROM; a *step* is one instruction of it; the *head* is what stands before the first instruction
// (directives, comments). A step's *lines* are the user's, also for a step that a pass made.
//
// Facts is what is known of the world (images, build arguments, the context); Flow says with which user, directory, shell and
// environment each step starts. The package does no I/O and knows nothing of passes.
package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// Plan is one Dockerfile. Passes change the slices, and replace steps; a Step is never changed in place.
type Plan struct {
	Name   string // file name as the user knows it
	Source []byte // the user's bytes
	Escape rune   // the escape character
	Head   string // what stands before the first instruction, verbatim
	Args   []*Step
	Stages []*Stage
	Tail   string // what stands after the last instruction, verbatim

	made int // number of the last step
}

// Stage is what one FROM begins.
type Stage struct {
	From  *Step              // the FROM instruction; its Cmd is nil
	Def   instructions.Stage // FROM as BuildKit parses it, without commands; positions are of From.Text
	Index int                // position in the user's file, from 0; stays when other stages go
	Steps []*Step
}

// Step is one instruction. Steps are shared between plans: make a new one, never change one.
type Step struct {
	ID    int                  // from 1 in the user's order; a made step gets the next free number
	Lead  string               // comments and blank lines above it, verbatim
	Text  string               // the instruction with its heredocs, verbatim, without the last newline
	Cmd   instructions.Command // as BuildKit parses Text, nil for FROM; shared, so copy before Expand
	Lines Lines                // of the user's file
	Of    []int                // IDs of the user's steps that a made step stands for, nil for the user's own
	keep  map[string]bool

	shares bool // see Shares
}

// Lines are a range of lines of the user's file, from 1, both included.
type Lines struct{ First, Last int }

// Union is the smallest range that holds both.
func (l Lines) Union(m Lines) Lines {
	if l == (Lines{}) {
		return m
	}
	if m == (Lines{}) {
		return l
	}
	return Lines{min(l.First, m.First), max(l.Last, m.Last)}
}

// Kept reports whether a pragma on the step forbids the pass: `# optbuild: keep` or `# optbuild: off=<pass>` above it, or above the
// FROM of its stage, or in the head of the file.
func (s *Step) Kept(pass string) bool { return s.keep["*"] || s.keep[pass] }

// Name is the stage's name for people: AS name, or its number.
func (s *Stage) Name() string {
	if s.Def.Name != "" {
		return s.Def.Name
	}
	return fmt.Sprint(s.Index)
}

// quiet is a linter that says nothing: BuildKit's parser needs one where a comment configures it.
var quiet = linter.New(&linter.Config{SkipAll: true})

// Parse reads a Dockerfile. Errors are BuildKit's, with its message and position ([parser.LocationError]).
func Parse(name string, src []byte) (*Plan, error) {
	res, err := parser.Parse(strings.NewReader(string(src)))
	if err != nil {
		return nil, err
	}
	p := &Plan{Name: name, Source: src, Escape: res.EscapeToken}
	lines := splitLines(string(src))
	end := 0 // lines that are used up
	for _, n := range res.AST.Children {
		s := &Step{
			Lead:  strings.Join(lines[end:n.StartLine-1], ""),
			Text:  chomp(strings.Join(lines[n.StartLine-1:n.EndLine], "")),
			Lines: Lines{n.StartLine, n.EndLine},
		}
		end = n.EndLine
		if p.made == 0 {
			p.Head, s.Lead = s.Lead, ""
		}
		p.made++
		s.ID = p.made
		if err := p.add(s, n); err != nil {
			if _, _, stock := instructions.Parse(res.AST, quiet); stock != nil {
				return nil, stock // which knows what stands where, and not only what a line says
			}
			return nil, err
		}
	}
	if len(p.Stages) == 0 {
		return nil, errNoStages
	}
	p.Tail = strings.Join(lines[end:], "")
	if len(src) > 0 && src[len(src)-1] != '\n' && p.Tail == "" {
		p.Tail = noNewline
	}
	p.pragmas()
	return p, nil
}

// errNoStages has dockerfile2llb's words.
var errNoStages = errors.New("dockerfile contains no stages to build")

// noNewline is the Tail of a file whose last instruction ends without a newline.
const noNewline = "\x00"

func (p *Plan) add(s *Step, n *parser.Node) error {
	v, err := instructions.ParseInstructionWithLinter(n, quiet)
	if err != nil {
		return err
	}
	switch c := v.(type) {
	case *instructions.Stage:
		p.Stages = append(p.Stages, &Stage{From: s, Def: *c, Index: len(p.Stages)})
	case *instructions.ArgCommand:
		s.Cmd = c
		if len(p.Stages) == 0 {
			p.Args = append(p.Args, s)
			return nil
		}
		p.last().Steps = append(p.last().Steps, s)
	case instructions.Command:
		if len(p.Stages) == 0 {
			return errors.New("no build stage in current context")
		}
		s.Cmd = c
		p.last().Steps = append(p.last().Steps, s)
	default:
		return fmt.Errorf("plan: unknown instruction %T", v)
	}
	return nil
}

func (p *Plan) last() *Stage { return p.Stages[len(p.Stages)-1] }

// NewStep makes a step from the text of one instruction, to stand for the steps of, whose lines, pragmas and comments (of the first, then those of
// the others) it takes over. It is an error if the text is not exactly one instruction other than FROM.
func (p *Plan) NewStep(text string, of ...*Step) (*Step, error) {
	n, err := p.node(text)
	if err != nil {
		return nil, err
	}
	v, err := instructions.ParseInstructionWithLinter(n, quiet)
	if err != nil {
		return nil, fmt.Errorf("parse made step: %w", err)
	}
	c, ok := v.(instructions.Command)
	if !ok {
		return nil, fmt.Errorf("make step: %q is no step", text)
	}
	s := p.made1(text, of)
	s.Cmd = c
	return s, nil
}

// NewFrom makes the FROM of a stage anew, to stand for of.
func (p *Plan) NewFrom(text string, st *Stage) (*Stage, error) {
	n, err := p.node(text)
	if err != nil {
		return nil, err
	}
	v, err := instructions.ParseInstructionWithLinter(n, quiet)
	if err != nil {
		return nil, fmt.Errorf("parse made FROM: %w", err)
	}
	def, ok := v.(*instructions.Stage)
	if !ok {
		return nil, fmt.Errorf("make stage: %q is no FROM", text)
	}
	return &Stage{From: p.made1(text, []*Step{st.From}), Def: *def, Index: st.Index, Steps: st.Steps}, nil
}

func (p *Plan) made1(text string, of []*Step) *Step {
	p.made++
	s := &Step{ID: p.made, Text: text}
	for _, o := range of {
		s.Lead += o.Lead
		s.Lines = s.Lines.Union(o.Lines)
		if o.Of == nil {
			s.Of = append(s.Of, o.ID)
		}
		s.Of = append(s.Of, o.Of...)
		s.shares = s.shares || o.shares
		for k := range o.keep {
			if s.keep == nil {
				s.keep = map[string]bool{}
			}
			s.keep[k] = true
		}
	}
	slices.Sort(s.Of)
	s.Of = slices.Compact(s.Of)
	return s
}

// WithLead is the step with other comments above it.
func (s *Step) WithLead(lead string) *Step {
	t := *s
	t.Lead = lead
	return &t
}

// node parses one instruction.
func (p *Plan) node(text string) (*parser.Node, error) {
	src := text + "\n"
	if p.Escape != parser.DefaultEscapeToken {
		src = "# escape=" + string(p.Escape) + "\n" + src
	}
	res, err := parser.Parse(strings.NewReader(src))
	if err != nil {
		return nil, fmt.Errorf("parse made step: %w", err)
	}
	if len(res.AST.Children) != 1 {
		return nil, fmt.Errorf("make step: %q is %d instructions", text, len(res.AST.Children))
	}
	return res.AST.Children[0], nil
}

// Clone is a plan whose slices may be changed without changing p's.
func (p *Plan) Clone() *Plan {
	q := *p
	q.Args = slices.Clone(p.Args)
	q.Stages = make([]*Stage, len(p.Stages))
	for i, s := range p.Stages {
		t := *s
		t.Steps = slices.Clone(s.Steps)
		q.Stages[i] = &t
	}
	return &q
}

// splitLines cuts after each newline; the last line may lack one.
func splitLines(s string) []string {
	lines := strings.SplitAfter(s, "\n")
	if n := len(lines); lines[n-1] == "" { // also of the empty string
		lines = lines[:n-1]
	}
	return lines
}

func chomp(s string) string { return strings.TrimSuffix(s, "\n") }
