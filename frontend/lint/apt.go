package lint

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/script"
)

// aptValued are flags of apt whose value is the next word.
var aptValued = []string{"-o", "--option", "-t", "--target-release", "--default-release", "-c", "--config-file", "-a", "--host-architecture"}

// isApt reports whether a command is apt-get or apt with one of the subcommands.
func isApt(c script.Command, subcommands ...string) bool {
	if n := c.Name(); n != "apt-get" && n != "apt" {
		return false
	}
	ops := c.Operands(aptValued...)
	return len(ops) > 0 && ops[0].Literal && slices.Contains(subcommands, ops[0].Value)
}

// text is the command as the script has it.
func text(sc *script.Script, c script.Command) string { return sc.Text[c.Start:c.End] }

const aptLists = "/var/lib/apt/lists"

func aptListsKept(c *check) {
	for _, st := range c.target {
		c.runs(st, func(s *plan.Step, sc *script.Script) {
			if c.mounted(s, aptLists) {
				return
			}
			commands := sc.Commands()
			for i, cmd := range commands {
				if !isApt(cmd, "update") || removesLists(sc, commands[i+1:]) {
					continue
				}
				c.report(s, text(sc, cmd), Finding{
					Message: "the package lists that this fetches stay in the image: 20 to 80 MB",
					Remedy:  "end the same RUN with && rm -rf /var/lib/apt/lists/*",
				})
				return
			}
		})
	}
}

// removesLists reports whether one of the commands, or a function or trap that may run later, removes apt's lists.
func removesLists(sc *script.Script, later []script.Command) bool {
	for _, h := range sc.Hazards() {
		if h.Kind == script.Function || h.Kind == script.Trap {
			if strings.Contains(sc.Text, aptLists) {
				return true
			}
		}
	}
	for _, cmd := range later {
		if isApt(cmd, "dist-clean", "distclean") || strings.Contains(cmd.Name(), "clean") {
			return true
		}
		if n := cmd.Name(); n != "rm" && n != "find" {
			continue
		}
		for _, w := range cmd.Args() {
			name := strings.Trim(w.Raw, `"'`)
			if under(aptLists, strings.TrimSuffix(strings.TrimSuffix(name, "*"), "/")) || strings.HasPrefix(name, aptLists+"/") || strings.HasPrefix(name, "/var/lib/apt/{") {
				return true
			}
		}
	}
	return false
}

// under reports whether name is dir or is below it.
func under(name, dir string) bool {
	return strings.HasPrefix(dir, "/") && dir != "/" && (name == path.Clean(dir) || strings.HasPrefix(name, path.Clean(dir)+"/"))
}

// mounted reports whether the step mounts something over a directory, so that what it writes there does not stay.
func (c *check) mounted(s *plan.Step, dir string) bool {
	st := c.stage[s]
	mounts, err := c.p.Mounts(s, &c.states[st][slices.Index(st.Steps, s)])
	return err != nil || slices.ContainsFunc(mounts, func(m *instructions.Mount) bool { return under(dir, m.Target) })
}

func staleAptLists(c *check) {
	for _, st := range c.p.Stages {
		var fetched *plan.Step // by an earlier step
		c.runs(st, func(s *plan.Step, sc *script.Script) {
			var updated, removed bool
			commands := sc.Commands()
			for i, cmd := range commands {
				switch {
				case isApt(cmd, "update"):
					updated = true
					removed = removesLists(sc, commands[i+1:])
				case isApt(cmd, "install") && !updated && fetched != nil && named(cmd):
					c.report(s, text(sc, cmd), Finding{
						Message: fmt.Sprintf("packages are installed from lists that line %d fetched: once that is cached they are old, and the packages may be gone", fetched.Lines.First),
						Remedy:  "put apt-get update and the install into one RUN; optbuild fix does",
					})
					updated = true // once for each step
				}
			}
			if updated && !removed && slices.ContainsFunc(commands, func(cmd script.Command) bool { return isApt(cmd, "update") }) {
				fetched = s
			}
		})
	}
}

// named reports whether the command installs packages by name, rather than files or what is missing (-f).
func named(c script.Command) bool {
	return slices.ContainsFunc(c.Operands(aptValued...)[1:], func(w script.Word) bool { return !strings.Contains(w.Raw, "/") && !strings.HasSuffix(w.Raw, ".deb") })
}

func assumeYesMissing(c *check) {
	for _, st := range c.p.Stages {
		configured := false
		for _, s := range st.Steps {
			low := strings.ToLower(s.Text)
			configured = configured || strings.Contains(low, "assume-yes") || strings.Contains(low, "assumeyes") || strings.Contains(low, "apt.conf")
			sc := c.scripts[s]
			if sc == nil || configured {
				continue
			}
			for _, cmd := range sc.Commands() {
				if cmd.Piped || !cmd.Literal() || !asks(cmd) {
					continue
				}
				c.report(s, text(sc, cmd), Finding{
					Message: cmd.Name() + " asks before it goes on, and a build has nobody to answer: the step fails",
					Remedy:  "give it -y",
				})
			}
		}
	}
}

// asks reports whether a package manager would ask.
func asks(c script.Command) bool {
	switch c.Name() {
	case "apt-get", "apt":
		return isApt(c, "install", "upgrade", "dist-upgrade", "full-upgrade", "remove", "purge", "autoremove", "build-dep") &&
			!c.HasFlag("-y", "--yes", "--assume-yes", "--force-yes", "-qq", "-s", "--simulate", "--dry-run", "--print-uris", "-h", "--help") && !strings.Contains(wordsOf(c), "-qq")
	case "yum", "dnf", "microdnf", "tdnf":
		ops := c.Operands()
		return len(ops) > 0 && slices.Contains([]string{"install", "update", "upgrade", "remove", "groupinstall", "reinstall"}, ops[0].Value) &&
			!c.HasFlag("-y", "--yes", "--assumeyes", "--assumeno", "-h", "--help") && !strings.Contains(wordsOf(c), "assumeyes")
	}
	return false
}

func wordsOf(c script.Command) string {
	var b strings.Builder
	for _, w := range c.Words {
		b.WriteString(" " + w.Value)
	}
	return b.String()
}
