package script

import (
	"errors"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// ErrShebang says that a RUN's heredoc is a program of its own.
var ErrShebang = errors.New("a heredoc that starts with #! is a program of its own")

// OfRun is what a RUN runs, as BuildKit hands it to the shell: the lines joined, the heredocs put in.
func OfRun(run *instructions.RunCommand, shell []string) (*Script, error) {
	if !run.PrependShell {
		return Exec(run.CmdLine), nil
	}
	text := strings.Join(run.CmdLine, " ")
	if len(run.Files) > 0 {
		if parser.MustParseHeredoc(text) != nil {
			text = run.Files[0].Data
			if run.Files[0].Chomp {
				text = parser.ChompHeredocContent(text)
			}
			if strings.HasPrefix(text, "#!") {
				return nil, ErrShebang
			}
		} else {
			for _, f := range run.Files {
				text += "\n" + f.Data + f.Name
			}
		}
	}
	return Parse(text, shell)
}
