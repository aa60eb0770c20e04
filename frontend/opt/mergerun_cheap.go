package opt

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/script"
)

// refusal is why two RUNs stay two: a remark's name and message.
type refusal struct{ name, message string }

// cheapCommand is a row of the table of commands that cost next to nothing each time they run, and that run to their end in their own
// process: nothing of them is left but files.
type cheapCommand struct {
	flags   func(script.Command) bool // the flags are such that this holds; nil: whatever they are
	paths   func([]string) []string   // which of the arguments are files; nil: all
	removes bool                      // files, or what was there before
	account bool                      // users and groups
}

var cheapCommands = map[string]cheapCommand{
	":":        {paths: noPaths},
	"[":        {},
	"addgroup": {paths: noPaths, account: true},
	"adduser":  {paths: noPaths, account: true},
	"chgrp":    {flags: few},
	"chmod":    {flags: few},
	"chown":    {flags: few},
	"dpkg":     {flags: func(c script.Command) bool { return c.HasFlag("--add-architecture") }, paths: noPaths},
	"echo":     {paths: noPaths},
	"false":    {paths: noPaths},
	"git":      {flags: func(c script.Command) bool { return c.Is("git", "config") && c.HasFlag("--global", "--system") }, paths: noPaths},
	"grep":     {flags: func(c script.Command) bool { return !c.HasFlag("-r", "-R", "--recursive") && len(c.Operands("-e")) > 0 }},
	"groupadd": {paths: noPaths, account: true},
	"install":  {flags: func(c script.Command) bool { return c.HasFlag("-d", "--directory") }},
	// A hard link does not outlive the step in the same way: overlayfs breaks it when the next step writes to the file.
	"ln":      {flags: func(c script.Command) bool { return c.HasFlag("-s", "--symbolic") }, removes: true},
	"mkdir":   {},
	"printf":  {flags: func(c script.Command) bool { return !c.HasFlag("-v") }, paths: noPaths},
	"rm":      {removes: true},
	"rmdir":   {removes: true},
	"sed":     {flags: plainSed, paths: func(args []string) []string { return args[min(1, len(args)):] }},
	"tee":     {},
	"test":    {},
	"touch":   {},
	"true":    {paths: noPaths},
	"useradd": {paths: noPaths, account: true},
	"usermod": {flags: func(c script.Command) bool { return c.HasFlag("-G", "-aG", "-s") && !c.HasFlag("-d", "-u", "-m") }, paths: noPaths, account: true},
}

func noPaths([]string) []string { return nil }

// few: a change of mode or owner copies the file into the layer, a tree's costs what the tree has.
func few(c script.Command) bool {
	return !c.HasFlag("-R", "--recursive") && len(c.Operands()) <= 9
}

// plainSed edits named files by a substitution or a deletion without the flags that run programs or write other files.
func plainSed(c script.Command) bool {
	operands := c.Operands("-e", "--expression")
	expressions := 0
	for _, a := range c.Args() {
		if a.Value == "-e" || strings.HasPrefix(a.Value, "--e") {
			expressions++
		}
	}
	if e, ok := c.Flag("-e", "--expression"); ok {
		operands = append([]script.Word{e}, operands...)
	}
	return expressions < 2 && c.HasFlag("-i", "--in-place") && !c.HasFlag("-f", "--file") &&
		len(operands) > 1 && operands[0].Literal && plainSedScript(operands[0].Value)
}

var sedDeletion = regexp.MustCompile(`^(\$|[0-9]+|/[^/\n]*/)d$`)

func plainSedScript(text string) bool {
	if sedDeletion.MatchString(text) {
		return true
	}
	if len(text) < 4 || text[0] != 's' {
		return false
	}
	var ends []int // of the pattern, the replacement and the flags
	for i := 2; i < len(text); i++ {
		if text[i] == '\\' {
			i++
		} else if text[i] == text[1] {
			ends = append(ends, i)
		}
	}
	return len(ends) == 2 && strings.Trim(text[ends[1]+1:], "gIi0123456789") == ""
}

// indexUse is what a command does with a package manager's index: updates it, or installs from it.
func indexUse(c script.Command) (manager string, updates, installs bool) {
	name := c.Name()
	operands := c.Operands("-o", "--option", "-c", "--config-file", "-t", "--target-release", "-a", "--host-architecture", "-X", "--repository", "-p", "--root")
	if len(operands) == 0 || !operands[0].Literal {
		return "", false, false
	}
	switch verb := operands[0].Value; name {
	case "apt-get", "apt", "aptitude":
		return "apt-get", verb == "update", slices.Contains([]string{"install", "reinstall", "upgrade", "dist-upgrade", "full-upgrade", "build-dep", "source", "download", "satisfy"}, verb)
	case "apk":
		return "apk", verb == "update", slices.Contains([]string{"add", "upgrade", "fix", "fetch"}, verb) && !c.HasFlag("--no-cache", "-U", "--update-cache", "--update")
	case "dnf", "yum", "microdnf":
		return name, verb == "makecache", slices.Contains([]string{"install", "reinstall", "upgrade", "update", "groupinstall", "builddep", "distro-sync"}, verb)
	}
	return "", false, false
}

// early is a RUN as the earlier one of two: whether it costs nothing to run it again, and what forbids it all the same.
type early struct {
	cheap   bool     // but for index
	index   string   // the package manager whose index it updates
	only    bool     // that is all it does
	names   string   // the programs that it runs
	refused *refusal // it is cheap, and must stay a step of its own
}

// asEarly looks at all commands of a RUN. What is not in the table may take any time.
func asEarly(s *script.Script, at *plan.State) early {
	e := early{cheap: true, only: true}
	commands := s.Commands()
	if len(commands) == 0 || !s.Simple() {
		return early{}
	}
	var ran []string
	for _, c := range commands {
		if !slices.Contains(ran, c.Name()) && !setsOnly(c) {
			ran = append(ran, c.Name())
		}
	}
	e.names = strings.Join(ran, ", ")
	lookup := s.Lookup(func(name string) (string, bool) {
		v, set, known := at.Lookup(name)
		return v.Value, set && known
	})
	for _, c := range commands {
		manager, updates, _ := indexUse(c)
		switch {
		case c.Background || c.Function || len(c.Words) == 0:
			return early{}
		case updates:
			e.index = manager
			if e.refused == nil {
				e.refused = hazardOf(c, cheapCommand{paths: noPaths}, at, lookup, ran)
			}
			continue
		case setsOnly(c):
			if e.refused == nil && !strings.HasSuffix(at.Shell[0], "bash") && slices.ContainsFunc(c.Args(), func(w script.Word) bool { return w.Value == "pipefail" }) {
				e.refused = &refusal{"shell-option", "not every sh has pipefail, and without it the step fails"}
			}
			continue
		}
		e.only = false
		row, ok := cheapCommands[c.Name()]
		if !ok || len(c.Wrappers) > 0 || row.flags != nil && !row.flags(c) {
			return early{}
		}
		if e.refused == nil {
			e.refused = hazardOf(c, row, at, lookup, ran)
		}
	}
	for _, h := range s.Hazards() {
		if h.Kind != script.Option && e.refused == nil {
			e.refused = &refusal{"shell-state", "its shell's " + string(h.Kind) + " would reach the next RUN"}
		}
	}
	if list, all := s.Sets(); e.refused == nil && (all || len(list) > 0) {
		e.refused = &refusal{"shell-state", "a variable that it sets would reach the next RUN"}
	}
	return e
}

// setsOnly is `set -ex` and the like: options that an and-list does not need.
func setsOnly(c script.Command) bool {
	if c.Name() != "set" || len(c.Args()) == 0 {
		return false
	}
	for _, a := range c.Args() {
		if !a.Literal || strings.Trim(a.Value, "-euxv") != "" && a.Value != "-o" && a.Value != "-eo" && a.Value != "-euo" && a.Value != "-euxo" && a.Value != "pipefail" {
			return false
		}
	}
	return true
}

// hazardOf finds what would be different for the next RUN if it did not start afresh.
func hazardOf(c script.Command, row cheapCommand, at *plan.State, lookup func(string) (string, bool), ran []string) *refusal {
	var args, files []string
	for _, w := range c.Args() {
		value, ok := w.Expand(lookup)
		if !ok {
			return &refusal{"unknown-word", "what " + w.Raw + " stands for is not known"}
		}
		args = append(args, value)
	}
	for _, a := range c.Assigns {
		if !a.Value.Literal {
			return &refusal{"unknown-word", "what " + a.Value.Raw + " stands for is not known"}
		}
	}
	for _, r := range c.Redirects {
		value, ok := r.Target.Expand(lookup)
		if !ok {
			return &refusal{"unknown-word", "what " + r.Target.Raw + " stands for is not known"}
		}
		if r.Writes() {
			files = append(files, value)
		}
	}
	if row.account {
		for _, a := range args {
			if a == "root" || a == "0" || a == at.User {
				return &refusal{"account", "it may change the account with which the next RUN starts"}
			}
		}
		return nil
	}
	if row.paths == nil {
		files = append(files, args...)
	} else {
		files = append(files, row.paths(args)...)
	}
	for _, f := range files {
		if r := hazardousFile(f, row.removes, at, ran); r != nil {
			return r
		}
	}
	return nil
}

// perStep are mounted anew for each step; startFiles are read when a step starts; shells are started.
var (
	perStep    = []string{"/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}
	startFiles = []string{"/etc/passwd", "/etc/group", "/etc/shadow", "/etc/ld.so.preload"}
	shells     = []string{"sh", "bash", "dash", "ash", "busybox"}
	system     = []string{"/bin/sh", "/usr/bin", "/lib", "/usr/lib", "/lib64"} // what a shell needs to start
)

func hazardousFile(file string, removes bool, at *plan.State, ran []string) *refusal {
	if _, value, ok := strings.Cut(file, "="); ok && strings.HasPrefix(file, "-") {
		file = value // --target-directory=/dev
	}
	if file == "/dev/null" || file == "/dev/stdout" || file == "/dev/stderr" || strings.HasPrefix(file, "-") {
		return nil
	}
	if !path.IsAbs(file) {
		if !at.DirOK {
			return &refusal{"unknown-directory", "the directory that " + file + " is in is not known"}
		}
		file = path.Join(at.Dir, file)
	}
	file = path.Clean(file)
	name, program := path.Base(file), strings.HasSuffix(path.Dir(file), "bin")
	inside := func(other string) bool { return within(other, file) }
	switch {
	case slices.ContainsFunc(perStep, func(p string) bool { return within(file, p) }) || removes && slices.ContainsFunc(perStep, inside):
		return &refusal{"per-step-file", file + " is made anew for each step"}
	case slices.Contains(startFiles, file):
		return &refusal{"start-file", file + " is read when a step starts"}
	case program && slices.Contains(shells, name), slices.Contains(at.Shell, file), removes && slices.ContainsFunc(system, inside), strings.Contains(name, ".so"):
		return &refusal{"shell-replaced", "it may replace the shell that the next RUN starts with, or what that needs"}
	case program && slices.Contains(ran, name):
		return &refusal{"program-replaced", "it may replace " + name + ", which a shell does not look for twice"}
	case removes && !at.DirOK:
		return &refusal{"unknown-directory", "the directory that the next RUN starts in is not known"}
	case removes && inside(at.Dir):
		return &refusal{"directory-removed", "the next RUN starts in " + at.Dir + ", which it may remove"}
	}
	return nil
}

// within reports whether a file is the directory or lies below it.
func within(file, dir string) bool {
	return file == dir || dir == "/" || strings.HasPrefix(file, dir+"/")
}
