package diagnose

import (
	"regexp"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

var (
	noSecret = regexp.MustCompile(`^secret (\S+): not found$`)
	noStage  = regexp.MustCompile(`^no build stage in current context`)
)

// suggestFlag says what the build command or the Dockerfile lacks.
func (d *Diagnosis) suggestFlag(text string) {
	if m := noSecret.FindStringSubmatch(text); m != nil {
		d.hint("give it to the build: --secret id=" + m[1] + ",src=FILE, or --secret id=" + m[1] + ",env=VARIABLE")
	}
	if noStage.MatchString(text) {
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
