// Package diagnose turns what is known of a failed build into words for the author of the Dockerfile.
//
// What comes in is a [Failure]: the engine's error as facts (text, lines, exit code), the Dockerfile's text, and the files
// of the build's context; what goes out is a [Diagnosis]: a position, one line that says what is wrong, an excerpt, and
// hints. It is a pure function of its arguments. The package knows Dockerfiles and ignore files; it refuses to know engines,
// terminals and logs.
//
//	failed to compute cache key: failed to calculate checksum of ref …: "/app.text": not found
//
// becomes
//
//	Dockerfile:3: COPY app.text ./: app.text is not in the build context
//	hint: did you mean app.txt?
//
// It is weakest where BuildKit tells facts in prose only: which path is missing is read out of its message, so a change of
// those messages costs the better text, and the engine's own is shown (see [Clean]).
package diagnose

import (
	"bytes"
	"fmt"
	"io/fs"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// Failure is what is known of a failed build. Only Text must be there.
type Failure struct {
	// Text is the engine's error.
	Text string
	// File is the Dockerfile as the user knows it, Source its text.
	File   string
	Source []byte
	// First and Last are the lines that the error is about, counted from 1; 0 if that is unknown.
	First, Last int
	// Step is the failed step's name in the engine's progress, "" if no step failed. It stands in for unknown lines.
	Step string
	// Exited says that a step's process ended with ExitCode.
	Exited   bool
	ExitCode int
	// OutOfMemory says that the kernel killed a process of the step for lack of memory.
	OutOfMemory bool
}

// Context is where the build's files come from.
type Context struct {
	// Files is the context directory, nil if the context is remote.
	Files fs.FS
	// None says that there is no context: the Dockerfile came alone.
	None bool
	// NoAgent says that the build was offered no SSH agent and no keys.
	NoAgent bool
	// Ignore is the ignore file in force; its zero value ignores nothing.
	Ignore IgnoreFile
	// Named are the named contexts that are local directories.
	Named map[string]fs.FS
}

// Diagnosis is what to tell the user.
type Diagnosis struct {
	// File, First and Last are the position; First is 0 if there is none.
	File        string
	First, Last int
	// Message is one line, without the position.
	Message string
	// Excerpt is the text around the position with line numbers and marks, "" without a position. It ends in a newline.
	Excerpt string
	// Hints are lines that say what to do.
	Hints []string
}

// Error is the message with its position in front.
func (d *Diagnosis) Error() string {
	if d.First == 0 {
		return d.Message
	}
	return fmt.Sprintf("%s:%d: %s", d.File, d.First, d.Message)
}

// Explain finds out what to tell the user about a failure.
func Explain(f Failure, c Context) *Diagnosis {
	text, parseError := trimParseError(Clean(f.Text))
	instruction := ""
	if m := stepName().FindStringSubmatch(f.Step); m != nil && f.First == 0 {
		instruction = m[1]
		f.First, f.Last = locate(f.Source, instruction)
	}
	d := &Diagnosis{File: f.File, First: f.First, Last: max(f.First, f.Last)}
	if d.explainTarget(text, f.Source) {
		return d
	}
	if f.First == 0 || len(f.Source) == 0 {
		d.First, d.Last = 0, 0
		d.explainUnplaced(text, instruction)
		return d
	}
	d.Excerpt = Excerpt(f.Source, d.First, d.Last)
	step := findStep(f.Source, d.First, d.Last)
	switch {
	case parseError || step.text == "":
		d.Message = text
		return d
	case f.Exited:
		d.explainExit(f, step)
		d.missAgent(step, c)
		return d
	}
	if path, ok := missingPath(text); ok {
		if d.explainMissing(path, step, c) {
			return d
		}
	}
	text = d.suggestStage(text, step)
	d.suggestFlag(text)
	d.missAgent(step, c)
	d.Message = step.text + ": " + trimRepeated(text, step.text)
	return d
}

// stepName matches the names of steps that are instructions: "[build 2/3] RUN make".
var stepName = lazily(`^\[[^\]]*\d+/\d+\] ([A-Z]+ .*)`)

// emptyDockerfile is said without a name.
const emptyDockerfile = "the Dockerfile cannot be empty"

// noDockerfile is what is said of a remote context.
var noDockerfile = lazily(`^failed to read dockerfile: open ([^:]+): no such file or directory$`)

// explainUnplaced is for an error without a position.
func (d *Diagnosis) explainUnplaced(text, instruction string) {
	d.Message = text
	if text == emptyDockerfile && d.File != "" {
		d.Message = d.File + " is empty"
	}
	if m := noDockerfile().FindStringSubmatch(text); m != nil {
		d.Message = "the build context has no " + m[1]
		d.hint("name the Dockerfile with -f, relative to the root of the context")
	} else if instruction != "" {
		d.Message = oneLine(instruction) + ": " + text
	}
}

// locate finds the lines of an instruction by its text, 0 if it is not there or not in that form: in the names of steps
// variables have their values.
func locate(source []byte, instruction string) (first, last int) {
	parsed, err := parser.Parse(bytes.NewReader(source))
	if err != nil {
		return 0, 0
	}
	want := strings.Join(strings.Fields(instruction), " ")
	for _, node := range parsed.AST.Children {
		if strings.EqualFold(strings.Join(strings.Fields(node.Original), " "), want) {
			return node.StartLine, node.EndLine
		}
	}
	return 0, 0
}

func (d *Diagnosis) explainExit(f Failure, s step) {
	how := fmt.Sprintf("exit code %d", f.ExitCode)
	const remedy = "give the machine or container more memory, or let the step use less of it, for example with fewer parallel jobs"
	switch {
	case f.OutOfMemory && f.ExitCode == 137:
		how += ": killed, out of memory"
		d.Hints = append(d.Hints, remedy)
	case f.OutOfMemory:
		how += "; a process of it was killed, out of memory"
		d.Hints = append(d.Hints, remedy)
	case f.ExitCode == 137:
		how += ": killed, probably out of memory"
		d.Hints = append(d.Hints, remedy)
	case f.ExitCode == 139:
		how += ": segmentation fault"
	}
	d.Message = s.text + ": " + how
}

var suggested = lazily(`\(did you mean (\S+)\?\)$`)

// suggestStage makes a hint of a suggestion in a message when what was taken for an image may have been meant as a stage.
func (d *Diagnosis) suggestStage(text string, s step) string {
	if m := suggested().FindStringSubmatch(text); m != nil {
		for _, stage := range s.stages {
			if strings.EqualFold(stage.Name, m[1]) {
				d.hint("did you mean the stage " + stage.Name + "?")
				return strings.TrimSpace(strings.TrimSuffix(text, m[0]))
			}
		}
	}
	if c, ok := s.command.(*instructions.CopyCommand); ok && plainName().MatchString(c.From) && strings.Contains(text, "/library/"+c.From+":") {
		d.hint("no stage above is called " + c.From + ", so it was taken for an image")
	}
	return text
}

// plainName matches what is as likely a stage as an image.
var plainName = lazily(`^[a-z0-9_-]+$`)

// step is the instruction that a failure is about.
type step struct {
	// text is the instruction in one line, clipped. "" if no instruction was found.
	text    string
	command instructions.Command // nil for FROM, and for what can't be parsed
	stages  []instructions.Stage
}

// findStep finds the instruction on some lines.
func findStep(source []byte, first, last int) step {
	var s step
	parsed, err := parser.Parse(bytes.NewReader(source))
	if err != nil {
		return s
	}
	for _, node := range parsed.AST.Children {
		if node.StartLine <= last && node.EndLine >= first {
			s.text = oneLine(node.Original)
			break
		}
	}
	s.stages, _, err = instructions.Parse(parsed.AST, linter.New(&linter.Config{}))
	if err != nil {
		return s
	}
	for _, stage := range s.stages {
		for _, c := range stage.Commands {
			for _, r := range c.Location() {
				if r.Start.Line <= last && max(r.End.Line, r.Start.Line) >= first {
					s.command = c
					expandMounts(c)
					return s
				}
			}
		}
	}
	return s
}

// oneLineRunes bounds an instruction in a message.
const oneLineRunes = 72

func oneLine(text string) string {
	r := []rune(strings.Join(strings.Fields(text), " "))
	if len(r) > oneLineRunes {
		return strings.TrimSpace(string(r[:oneLineRunes-1])) + "…"
	}
	return string(r)
}
