package script

import (
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// Command is a simple command.
type Command struct {
	Assigns   []Assign // before the command, and those of `env` before the program; alone: the shell's own variables
	Words     []Word   // all words; none for a lone assignment or redirect
	Redirects []Redirect
	Wrappers  []string // env, sudo, exec, command, nice ... that stand before the program, outermost first

	Conditional bool // the script can succeed without having run it
	Unchecked   bool // its failure does not fail the script
	Background  bool
	Piped       bool
	Subshell    bool // runs in another process than the script's shell: its cd and variables end there
	Function    bool // calls a function of the script

	Start, End uint // in Script.Text, without what joins it to the next; that of the outer command for one in `sh -c`

	program    int // index in Words
	inFunction bool
	inner      bool
}

// Name is the program's name, looked for behind env, sudo, exec, command, nice and the like: its last element for a path in one of
// the usual directories for programs, the path as written for others. It is "" if it is not literal, for a lone
// assignment and for a function of the script.
func (c Command) Name() string {
	if c.Function || c.program >= len(c.Words) || !c.Words[c.program].Literal {
		return ""
	}
	return base(c.Words[c.program].Value)
}

// Args are the words after the program.
func (c Command) Args() []Word {
	if c.program >= len(c.Words) {
		return nil
	}
	return slices.Clone(c.Words[c.program+1:])
}

// Literal reports whether all words are.
func (c Command) Literal() bool {
	return !slices.ContainsFunc(c.Words, func(w Word) bool { return !w.Literal })
}

// Is reports whether the program has that name and its first operands are these words: c.Is("go", "build").
func (c Command) Is(name string, operands ...string) bool {
	if c.Name() != name {
		return false
	}
	if len(operands) == 0 {
		return true
	}
	have := c.Operands()
	if len(have) < len(operands) {
		return false
	}
	for i, o := range operands {
		if !have[i].Literal || have[i].Value != o {
			return false
		}
	}
	return true
}

// clusterless are programs whose long flags have one dash.
var clusterless = []string{"find", "go", "gofmt", "java", "javac", "openssl", "terraform"}

// HasFlag reports whether one of the flags is given: as a word, with =value, or, for one letter, among others (-y in -qqy).
func (c Command) HasFlag(flags ...string) bool {
	clusters := !slices.Contains(clusterless, c.Name())
	for _, w := range c.Args() {
		if !w.Literal {
			// --flag=$VALUE
			if name, _, ok := strings.Cut(w.Raw, "="); ok && slices.Contains(flags, name) {
				return true
			}
			continue
		}
		if w.Value == "--" {
			return false
		}
		name, _, _ := strings.Cut(w.Value, "=")
		for _, f := range flags {
			if w.Value == f || name == f {
				return true
			}
			if clusters && len(f) == 2 && len(w.Value) > 2 && w.Value[0] == '-' && letters(w.Value[1:]) && strings.Contains(w.Value, f[1:]) {
				return true
			}
		}
	}
	return false
}

func letters(s string) bool {
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// Flag is the value of a flag that has one: --flag=value, --flag value, -f value. The last one counts, as for most programs.
func (c Command) Flag(flags ...string) (Word, bool) {
	var found Word
	var ok bool
	args := c.Args()
	for i, w := range args {
		if w.Literal && w.Value == "--" {
			break
		}
		if w.Literal && slices.Contains(flags, w.Value) {
			if i+1 < len(args) {
				found, ok = args[i+1], true
			}
			continue
		}
		if name, raw, has := strings.Cut(w.Raw, "="); has && slices.Contains(flags, name) {
			found, ok = w.after(len(name)+1), true
			found.Raw = raw
		}
	}
	return found, ok
}

// after is the word without its first n bytes, which are plain.
func (w Word) after(n int) Word {
	if w.Literal {
		w.Value = w.Value[min(n, len(w.Value)):]
		return w
	}
	lit, ok := w.parts0()
	if !ok || len(lit.Value) < n {
		return Word{Vars: w.Vars, hidden: true}
	}
	rest := *lit
	rest.Value = lit.Value[n:]
	w.parts = append([]syntax.WordPart{&rest}, w.parts[1:]...)
	return w
}

func (w Word) parts0() (*syntax.Lit, bool) {
	if len(w.parts) == 0 {
		return nil, false
	}
	lit, ok := w.parts[0].(*syntax.Lit)
	return lit, ok
}

// Operands are the arguments that are not flags. Flags whose value is the next word have to be named. A word that is not literal
// counts as an operand unless it starts with a plain dash.
func (c Command) Operands(valued ...string) []Word {
	var list []Word
	args := c.Args()
	for i := 0; i < len(args); i++ {
		w := args[i]
		switch {
		case w.Literal && w.Value == "--":
			return append(list, args[i+1:]...)
		case w.Literal && slices.Contains(valued, w.Value):
			i++
		case w.Literal && len(w.Value) > 1 && w.Value[0] == '-', !w.Literal && strings.HasPrefix(w.Raw, "-"):
		default:
			list = append(list, w)
		}
	}
	return list
}

// wrappers are programs that run the rest of their words, with their flags: those that have the next word as their value, and those
// that have none. An unknown flag ends the search, and the wrapper is the program.
var wrappers = map[string]struct{ valued, flags []string }{
	"builtin": {},
	"command": {flags: []string{"-p"}},
	"env":     {valued: []string{"-u", "--unset", "-C", "--chdir"}, flags: []string{"-", "-i", "--ignore-environment"}},
	"exec":    {valued: []string{"-a"}, flags: []string{"-c", "-l"}},
	"nice":    {valued: []string{"-n", "--adjustment"}},
	"nohup":   {},
	"sudo":    {valued: []string{"-u", "--user", "-g", "--group"}, flags: []string{"-E", "-H", "-n", "--preserve-env", "--set-home"}},
	"time":    {flags: []string{"-p"}},
}

// unwrap finds the program.
func (c *Command) unwrap(functions []string) {
	for {
		if c.program >= len(c.Words) || !c.Words[c.program].Literal {
			return
		}
		if len(c.Wrappers) == 0 && slices.Contains(functions, c.Words[c.program].Value) {
			c.Function = true
			return
		}
		name := base(c.Words[c.program].Value)
		known, ok := wrappers[name]
		if !ok {
			return
		}
		next, assigns, ok := c.behind(c.program+1, known.valued, known.flags, name == "env" || name == "sudo")
		if !ok {
			return
		}
		c.Wrappers = append(c.Wrappers, name)
		c.Assigns = append(c.Assigns, assigns...)
		c.program = next
	}
}

func (c *Command) behind(i int, valued, flags []string, env bool) (int, []Assign, bool) {
	var assigns []Assign
	for ; i < len(c.Words); i++ {
		w := c.Words[i]
		raw := w.Raw
		if w.Literal {
			raw = w.Value
		}
		name, _, assigned := strings.Cut(raw, "=")
		switch {
		case w.Literal && w.Value == "--":
			return i + 1, assigns, i+1 < len(c.Words)
		case w.Literal && slices.Contains(valued, w.Value):
			i++
		case w.Literal && slices.Contains(flags, w.Value), strings.HasPrefix(raw, "--") && assigned && slices.Contains(valued, name):
		case strings.HasPrefix(raw, "-"):
			return 0, nil, false
		case env && assigned && syntax.ValidName(name):
			assigns = append(assigns, Assign{Name: name, Value: w.after(len(name) + 1)})
		default:
			return i, assigns, true
		}
	}
	return 0, nil, false
}

// shellCall is the words of `sh -c text` up to the text, if they are literal and the shell is one that this package knows; with
// false and words: a shell of which this is not known.
func (c Command) shellCall() ([]string, bool) {
	switch c.Name() {
	case "sh", "bash", "dash", "ash":
	default:
		return nil, false
	}
	var words []string
	for i, w := range c.Words[c.program:] {
		if !w.Literal {
			return words, false
		}
		words = append(words, w.Value)
		if i == 0 || takesValue(words[i-1]) || strings.HasPrefix(w.Value, "-") {
			continue
		}
		if _, err := readShell(words[:i]); err != nil {
			return words, false
		}
		return words, true
	}
	return words, false
}

// takesValue is for -o and -euo.
func takesValue(option string) bool {
	return len(option) > 1 && option[0] == '-' && option[1] != '-' && strings.HasSuffix(option, "o")
}
