package opt

import (
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/script"
)

// scriptOf is what a RUN runs, as BuildKit hands it to the shell.
func scriptOf(run *instructions.RunCommand, at *plan.State) (*script.Script, error) {
	if run.PrependShell && !at.Known {
		return nil, fmt.Errorf("%w: the base image, which may set one, is not known", script.ErrShell)
	}
	return script.OfRun(run, at.Shell)
}

// startsWithFile reports whether the shell of a RUN in shell form reads a file first, or may do so.
func startsWithFile(at *plan.State) bool {
	_, set, known := at.Lookup("BASH_ENV")
	return (set || !known) && strings.HasSuffix(at.Shell[0], "bash")
}

// mentions reports whether a step's text has one of the names as a word of its own, lines joined: what does not mention a name cannot expand it.
func mentions(s *plan.Step, names ...string) bool {
	// BuildKit joins lines and leaves out the comments between them; a shell joins a heredoc's.
	texts := []string{s.Text, strings.ReplaceAll(s.Text, "\\\n", "")}
	if joined, ok := s.Cmd.(fmt.Stringer); ok {
		texts = append(texts, joined.String())
	}
	for _, text := range texts {
		for _, name := range names {
			if hasWord(text, name) {
				return true
			}
		}
	}
	return false
}

func hasWord(text, word string) bool {
	for at := 0; word != ""; {
		i := strings.Index(text[at:], word)
		if i < 0 {
			break
		}
		i += at
		end := i + len(word)
		if (i == 0 || !inName(text[i-1])) && (end == len(text) || !inName(text[end])) {
			return true
		}
		at = i + 1
	}
	return false
}

func inName(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
