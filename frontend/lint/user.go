package lint

import (
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/world"
)

// droppers are programs by which an entrypoint that starts as root goes on as somebody else.
var droppers = []string{"gosu", "su-exec", "setpriv", "runuser", "s6-setuidgid", "chpst"}

func rootUser(c *check) {
	if len(c.target) == 0 {
		return
	}
	st := c.target[len(c.target)-1]
	states := c.states[st]
	end := states[len(states)-1]
	if !end.UserOK || !isRoot(end.User) {
		return
	}
	commands, entrypoint := c.commands()
	if len(commands) == 0 { // a base for other images, or files to be taken out of it
		return
	}
	if world.Demotes(c.base(st)) && !entrypoint || c.drops(commands) {
		return
	}
	at, text := c.target[len(c.target)-1].From, ""
	for _, st := range c.target {
		for _, s := range st.Steps {
			if u, ok := s.Cmd.(*instructions.UserCommand); ok {
				at, text = s, u.User
			}
		}
	}
	if strings.Contains(text, "$") && end.User == "" { // a build argument that a real build is given
		return
	}
	c.report(at, text, Finding{
		Message: "the image's command runs as root",
		Remedy:  "end the stage with USER and an ordinary user, such as USER 1000:1000; what it writes to must belong to it",
	})
}

func isRoot(user string) bool {
	name, _, _ := strings.Cut(user, ":")
	return name == "" || name == "root" || name == "0"
}

// commands are the target's ENTRYPOINT and CMD, and whether it has an ENTRYPOINT of its own.
func (c *check) commands() (words [][]string, entrypoint bool) {
	for _, st := range c.target {
		for _, s := range st.Steps {
			switch cmd := s.Cmd.(type) {
			case *instructions.EntrypointCommand:
				words, entrypoint = append(words, cmd.CmdLine), true
			case *instructions.CmdCommand:
				words = append(words, cmd.CmdLine)
			}
		}
	}
	return words, entrypoint
}

// drops reports whether the image seems to change its user when it starts.
func (c *check) drops(commands [][]string) bool {
	var texts []string
	for _, words := range commands {
		texts = append(texts, strings.Join(words, " "))
		for _, name := range c.scriptsOf(words) {
			texts = append(texts, string(c.f.Context.Paths[name].Data))
		}
	}
	for _, st := range c.target {
		for _, s := range st.Steps {
			if _, ok := s.Cmd.(*instructions.RunCommand); ok {
				texts = append(texts, s.Text)
			}
			if cp, ok := s.Cmd.(*instructions.CopyCommand); ok { // a script in a heredoc
				for _, h := range cp.SourceContents {
					texts = append(texts, h.Data)
				}
			}
		}
	}
	return slices.ContainsFunc(texts, func(t string) bool {
		return slices.ContainsFunc(droppers, func(d string) bool { return strings.Contains(t, d) })
	})
}

// scriptsOf are the files of the context that a command may be: those of the same base name.
func (c *check) scriptsOf(words []string) []string {
	if len(words) == 0 {
		return nil
	}
	return filesNamed(c.f.Context, func(name string) bool {
		for _, w := range strings.Fields(strings.Join(words, " ")) {
			if base := path.Base(w); base == path.Base(name) && (strings.HasSuffix(base, ".sh") || strings.Contains(base, "entrypoint")) {
				return true
			}
		}
		return false
	})
}

// entryScripts are the files that rootUser would like to read.
func entryScripts(p *plan.Plan, f *plan.Facts) (list []string) {
	c := &check{p: p, f: f}
	for _, st := range p.Stages {
		for _, s := range st.Steps {
			switch cmd := s.Cmd.(type) {
			case *instructions.EntrypointCommand:
				list = append(list, c.scriptsOf(cmd.CmdLine)...)
			case *instructions.CmdCommand:
				list = append(list, c.scriptsOf(cmd.CmdLine)...)
			}
		}
	}
	return list
}
