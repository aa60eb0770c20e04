package lint

import (
	"slices"
	"strings"

	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/script"
)

// interpreters run what they read.
var interpreters = []string{"sh", "bash", "dash", "ash", "zsh", "ksh", "python", "python3", "perl", "ruby", "node"}

// download is a substitution of what a download gives.
var download = lazily("^[\"']?(?:<\\(|\\$\\(|`)\\s*(?:curl|wget)\\b")

func pipeToShell(c *check) {
	for _, st := range c.p.Stages {
		c.runs(st, func(s *plan.Step, sc *script.Script) {
			commands := sc.Commands()
			for i, cmd := range commands {
				if runsDownload(cmd) || cmd.Piped && readsScript(cmd) && fed(sc, commands[:i], cmd) {
					c.report(s, text(sc, cmd), Finding{
						Message: "what this downloads is run without a look at it: whoever serves it, or answers in its place, decides what is in the image",
						Remedy:  "download a version to a file, check it (sha256sum -c), then run it; or install a package",
					})
					return
				}
			}
		})
	}
}

// runsDownload is for bash <(curl ...), sh -c "$(curl ...)", eval "$(curl ...)" and source <(curl ...).
func runsDownload(c script.Command) bool {
	if n := c.Name(); !slices.Contains(interpreters, n) && n != "eval" && n != "source" && n != "." {
		return false
	}
	return slices.ContainsFunc(c.Args(), func(w script.Word) bool { return download().MatchString(w.Raw) })
}

// readsScript reports whether the command is an interpreter that runs its standard input.
func readsScript(c script.Command) bool {
	if !slices.Contains(interpreters, c.Name()) {
		return false
	}
	if c.HasFlag("-s") && strings.HasSuffix(c.Name(), "sh") {
		return true
	}
	if c.HasFlag("-c", "-m", "-e", "-n", "-p") && !strings.HasSuffix(c.Name(), "sh") || c.HasFlag("-c") {
		return false
	}
	ops := c.Operands("-o")
	return len(ops) == 0 || ops[0].Value == "-"
}

// fed reports whether a pipe leads from a download to the command, by way of programs that pass on what they read.
func fed(sc *script.Script, before []script.Command, c script.Command) bool {
	to := c
	for _, from := range slices.Backward(before) {
		if from.Subshell != to.Subshell && !from.Piped || from.End > to.Start {
			continue
		}
		if between := sc.Text[from.End:to.Start]; !pipe(between) {
			return false
		}
		switch from.Name() {
		case "curl", "wget":
			return true
		case "tee", "sed", "cat", "gunzip", "zcat", "tr", "grep", "base64", "pv":
			to = from
		default:
			return false
		}
	}
	return false
}

func pipe(between string) bool {
	between = strings.TrimSpace(strings.ReplaceAll(between, "\\\n", " "))
	between, _ = strings.CutPrefix(between, "2>&1")
	between = strings.TrimSpace(between)
	return between == "|" || between == "|&"
}

func sudo(c *check) {
	for _, st := range c.p.Stages {
		c.runs(st, func(s *plan.Step, sc *script.Script) {
			for _, cmd := range sc.Commands() {
				if !slices.Contains(cmd.Wrappers, "sudo") && cmd.Name() != "sudo" {
					continue
				}
				state := c.states[st][slices.Index(st.Steps, s)]
				f := Finding{Message: "sudo in a build asks nobody and hides which steps need root", Remedy: "put USER root before the step and USER with the ordinary user after it"}
				if state.UserOK && isRoot(state.User) {
					f = Finding{Message: "sudo does nothing here: the step runs as root", Remedy: "leave it out"}
				}
				c.report(s, "sudo", f)
				return
			}
		})
	}
}

// passing are commands that change their shell only.
var passing = []string{"cd", "export", "alias", "umask", "set", "unset", "shopt", "pushd", "popd", "ulimit"}

func runWithoutEffect(c *check) {
	for _, st := range c.p.Stages {
		c.runs(st, func(s *plan.Step, sc *script.Script) {
			commands, ok := sc.Straight()
			if !ok || len(commands) == 0 || sc.Shell == nil {
				return
			}
			last := commands[len(commands)-1]
			for _, cmd := range commands {
				activates := (cmd.Name() == "source" || cmd.Name() == ".") && len(cmd.Args()) > 0 && strings.HasSuffix(cmd.Args()[0].Raw, "/activate")
				if len(cmd.Redirects) > 0 || len(cmd.Words) > 0 && !slices.Contains(passing, cmd.Name()) && !activates {
					return
				}
			}
			remedy := "leave it out"
			switch name := last.Name(); {
			case name == "cd" || name == "pushd":
				remedy = "write WORKDIR"
			case name == "export" || len(last.Words) == 0:
				remedy = "write ENV"
			case name == "source" || name == ".":
				remedy = "put the environment's bin directory first: ENV PATH=…/bin:$PATH"
			}
			c.report(s, text(sc, last), Finding{
				Message: "this changes nothing but the step's own shell, which ends with the step",
				Remedy:  remedy,
			})
		})
	}
}
