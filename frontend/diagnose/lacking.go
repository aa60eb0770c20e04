package diagnose

import (
	"bytes"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

var (
	noSecret = lazily(`^secret (\S+): not found$`)
	noStage  = lazily(`^no build stage in current context`)
)

var noTarget = lazily(`^target stage "([^"]*)" could not be found(?: \(did you mean (\S+)\?\))?$`)

// explainTarget is for --target with a name that no stage has. It is nothing that a line of the Dockerfile says, though the
// engine names the first.
func (d *Diagnosis) explainTarget(text string, source []byte) bool {
	m := noTarget().FindStringSubmatch(text)
	if m == nil {
		return false
	}
	d.First, d.Last = 0, 0
	d.Message = "--target " + m[1] + ": there is no such stage"
	if d.File != "" {
		d.Message += " in " + d.File
	}
	names := stageNames(source)
	switch {
	case m[2] != "":
		d.hint("did you mean " + m[2] + "?")
	case len(names) > 0:
		d.hint("its stages are " + strings.Join(names, ", "))
	case len(source) > 0:
		d.hint("its stages have no names: FROM IMAGE AS NAME")
	}
	return true
}

func stageNames(source []byte) (names []string) {
	parsed, err := parser.Parse(bytes.NewReader(source))
	if err != nil {
		return nil
	}
	stages, _, err := instructions.Parse(parsed.AST, linter.New(&linter.Config{}))
	if err != nil {
		return nil
	}
	for _, s := range stages {
		if s.Name != "" {
			names = append(names, s.Name)
		}
	}
	return names
}

// suggestFlag says what the build command or the Dockerfile lacks.
func (d *Diagnosis) suggestFlag(text string) {
	if m := noSecret().FindStringSubmatch(text); m != nil {
		d.hint("give it to the build: --secret id=" + m[1] + ",src=FILE, or --secret id=" + m[1] + ",env=VARIABLE")
	}
	if noStage().MatchString(text) {
		d.hint("a Dockerfile begins with FROM; only ARG may stand before it")
	}
}

// expandMounts has the parser read a RUN's mounts, which it does when their variables get their values; here they keep their
// names.
func expandMounts(c instructions.Command) {
	if run, ok := c.(*instructions.RunCommand); ok {
		_ = run.Expand(func(word string) (string, error) { return word, nil }) // what can't be read has no type
	}
}

// missAgent says of a RUN with an SSH mount that the build had none to offer: what the step itself says of it is seldom
// clear. A mount that is not required is silently left out.
func (d *Diagnosis) missAgent(s step, c Context) {
	run, ok := s.command.(*instructions.RunCommand)
	if !ok || !c.NoAgent {
		return
	}
	for _, m := range instructions.GetMounts(run) {
		if m.Type == instructions.MountTypeSSH {
			d.hint("the step mounts an SSH agent, and the build was given none: --ssh default, or --ssh default=KEYFILE")
			return
		}
	}
}
