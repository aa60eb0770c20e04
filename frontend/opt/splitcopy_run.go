package opt

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/optbuild/optbuild/frontend/opt/installer"
	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/script"
)

// splitRefusal is why a RUN can't be split from the COPY above it: what a missed remark says.
type splitRefusal struct {
	name    string // stable, kebab-case
	message string
	args    []Arg
}

func refuseSplit(name, message string, args ...Arg) *splitRefusal {
	return &splitRefusal{name, message, args}
}

// calls is what a RUN runs: commands of the table, and maybe others after them.
type calls struct {
	known   []*installer.Call
	refusal *splitRefusal // why the rest is not known, nil if there is none or it can be cut off
	first   string        // text of the known part, if the rest can be a RUN of its own
	rest    string
	flags   *splitRefusal // what the RUN's own flags speak against
	mounts  []string      // targets of mounts, absolute or relative to the working directory, but for secrets
}

// name is how the RUN is called in remarks: its installers, without those that need no manifests if there are others.
func (c *calls) name() string {
	var names []string
	for _, all := range []bool{false, true} {
		for _, k := range c.known {
			if name := k.Name(); name != "" && (all || k.ReadsManifests()) && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		if len(names) > 0 {
			break
		}
	}
	return strings.Join(names, " and ")
}

// sentence begins with the installers, and a verb.
func (c *calls) sentence(verb string) string {
	if name := c.name(); strings.Contains(name, " and ") {
		return name + " " + verb
	}
	return c.name() + " " + verb + "s"
}

// manifests reports whether one of the commands reads manifests.
func (c *calls) manifests() bool {
	return slices.ContainsFunc(c.known, (*installer.Call).ReadsManifests)
}

// installing reports whether one of the commands of the table is more than harmless.
func (c *calls) installing() bool {
	return slices.ContainsFunc(c.known, func(k *installer.Call) bool { return k.Name() != "" })
}

// readCalls reads a RUN; nil if it calls no installer.
func readCalls(p *plan.Plan, step *plan.Step, state *plan.State) *calls {
	run := step.Cmd.(*instructions.RunCommand)
	at := *state
	at.Known = true // whether it is, examine asks; here the shell of a base image that is not known is taken for the default
	s, err := scriptOf(run, &at)
	if err != nil {
		return nil // of another shell, or with an error that the build will report
	}
	c := &calls{}
	commands, straight := s.Straight()
	if !straight {
		commands = s.Commands()
	}
	dir := ""
	for i, cmd := range commands {
		in, next, ok := installer.Read(cmd, dir)
		if ok && (straight || in != nil) {
			if in != nil {
				c.known = append(c.known, in)
			}
			dir = next
			continue
		}
		if !straight {
			continue
		}
		c.refusal = refuseSplit("other-command", "it also runs "+commandName(cmd)+", which may read any file", Arg{"command", commandName(cmd)})
		if c.installing() && i > 0 {
			c.cut(s, run, commands[:i], commands[i:])
		}
		for _, later := range commands[i+1:] { // for the remark
			if in, _, ok := installer.Read(later, dir); ok && in != nil && c.first == "" {
				c.known = append(c.known, in)
			}
		}
		break
	}
	if !c.installing() {
		return nil
	}
	if !straight {
		c.refusal = refuseSplit("control-flow", "the commands are not a plain list in which each must succeed")
	}
	if len(s.Hazards()) > 0 && c.refusal == nil {
		for _, h := range s.Hazards() {
			if h.Kind != script.Cd && h.Kind != script.Option {
				c.refusal = refuseSplit("shell-state", "the shell's own "+string(h.Kind)+" command may change what the installer does", Arg{"command", h.Text})
			}
		}
	}
	c.readMounts(p, step, state)
	return c
}

// commandName is a command for people.
func commandName(c script.Command) string {
	if name := c.Name(); name != "" {
		if args := c.Args(); len(args) > 0 && args[0].Literal && !strings.HasPrefix(args[0].Value, "-") && args[0].Value != "" {
			return name + " " + args[0].Value
		}
		return name
	}
	if len(c.Words) > 0 {
		return c.Words[0].Raw
	}
	return "an assignment"
}

var andThenRegexp = regexp.MustCompile(`^\s*&&\s*$`)

// cut makes two RUNs of the text, if they do what the one did: no state of the shell reaches the second part, and it does not remove
// what the first one made, which would then stay in the image as a layer.
func (c *calls) cut(s *script.Script, run *instructions.RunCommand, first, rest []script.Command) {
	if s.Shell == nil || len(run.Files) > 0 || len(run.FlagsUsed) > 0 || len(s.Comments()) > 0 {
		return
	}
	end, start := first[len(first)-1].End, rest[0].Start
	if !andThenRegexp.MatchString(s.Text[end:start]) {
		return
	}
	for _, h := range s.Hazards() {
		if h.Start < end {
			return
		}
	}
	text := s.Text[start:]
	if strings.ContainsAny(text[:1], "[-") || strings.Contains(text, "<<") || strings.Contains(s.Text[:end], "<<") || strings.HasSuffix(s.Text[:end], `\`) ||
		strings.Contains(text, "$_") || strings.Contains(text, "$?") || strings.ContainsAny(s.Text, "\n`") {
		return
	}
	for _, cmd := range rest {
		if cleansUp(cmd) {
			c.refusal.message += "; it could be a RUN of its own if nothing that is installed were removed or changed after it"
			return
		}
	}
	c.refusal, c.first, c.rest = nil, s.Text[:end], text
}

// cleansUp reports whether a command may remove, or write again, what an installer has made.
func cleansUp(c script.Command) bool {
	switch c.Name() {
	case "rm", "find", "chown", "chmod", "mv", "":
		return true
	}
	return slices.ContainsFunc(c.Words, func(w script.Word) bool {
		return !w.Literal || slices.Contains([]string{"prune", "clean", "purge", "uninstall", "remove", "autoremove", "--production", "--prod"}, w.Value)
	})
}

func (c *calls) readMounts(p *plan.Plan, step *plan.Step, state *plan.State) {
	mounts, err := mountsOf(p, step, state)
	if err != nil {
		c.flags = refuseSplit("mount", "it is not known what is mounted: "+err.Error())
		return
	}
	for _, m := range mounts {
		switch m.Type {
		case instructions.MountTypeSecret, instructions.MountTypeSSH: // the same in either order
		case instructions.MountTypeBind:
			if m.From == "" {
				c.flags = refuseSplit("bind-mount", "it mounts the context, and may read any file of it")
			}
			c.mounts = append(c.mounts, path.Join("/", m.Target))
		default:
			c.mounts = append(c.mounts, path.Join("/", m.Target))
		}
		if m.Target != "" && !path.IsAbs(m.Target) && m.Type != instructions.MountTypeSecret && m.Type != instructions.MountTypeSSH {
			c.flags = refuseSplit("mount", "the mount at "+m.Target+" is relative to the working directory", Arg{"target", m.Target})
		}
	}
}

// check reports what speaks against the RUN as a whole.
func (c *calls) check(t *copiedTree) *splitRefusal {
	if c.refusal != nil {
		return c.refusal
	}
	if c.flags != nil {
		return c.flags
	}
	for _, name := range c.mounts {
		for _, copied := range t.copies {
			if insideDir(copied.dest, name) {
				return refuseSplit("mount", "the mount at "+name+" hides what is copied", Arg{"target", name})
			}
			if _, p, known := t.Lookup(name); !known || p.Exists {
				return refuseSplit("mount", "the mount at "+name+" may hide copied files", Arg{"target", name})
			}
		}
	}
	return nil
}
