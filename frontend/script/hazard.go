package script

import (
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// Kind is the stable name of a hazard.
type Kind string

// Hazards. All but Background and Exit change the state of the shell for what comes after them in the same process.
const (
	Alias      Kind = "alias"
	Background Kind = "background" // a job that may be running when the shell ends
	Cd         Kind = "cd"         // also pushd and popd
	Eval       Kind = "eval"
	Replace    Kind = "exec" // the builtin; also without a program, for its redirections
	Exit       Kind = "exit" // also return, outside of a function
	Function   Kind = "function"
	Option     Kind = "option" // set and shopt
	Source     Kind = "source"
	Trap       Kind = "trap"
	Ulimit     Kind = "ulimit"
	Umask      Kind = "umask"
	Variable   Kind = "variable" // assignment, export, read, unset ...
)

// Hazard is something that outlives its command or stops the script.
type Hazard struct {
	Kind       Kind
	Target     string // directory of cd, options of set; "" if not literal
	Text       string
	Start, End uint // in Script.Text
	Nested     bool // in a subshell, substitution or `sh -c`: does not reach the script's shell
}

func (w *walker) hazard(kind Kind, stmt *syntax.Stmt, c context, target string) {
	sp := w.span(stmt)
	if kind == Function {
		sp = w.statement(stmt)
	}
	w.s.hazards = append(w.s.hazards, Hazard{Kind: kind, Target: target, Text: w.text(sp), Start: sp.Start, End: sp.End, Nested: c.subshell && kind != Background})
}

// builtins that are a hazard by being called.
var builtins = map[string]Kind{
	".": Source, "alias": Alias, "bg": Background, "cd": Cd, "chdir": Cd, "declare": Variable, "disown": Background, "eval": Eval,
	"exec": Replace, "exit": Exit, "export": Variable, "getopts": Variable, "hash": Option, "local": Variable, "let": Variable, "mapfile": Variable,
	"popd": Cd, "pushd": Cd, "read": Variable, "readarray": Variable, "readonly": Variable, "return": Exit, "set": Option,
	"setsid": Background, "shift": Variable, "shopt": Option, "source": Source, "trap": Trap, "typeset": Variable, "ulimit": Ulimit,
	"umask": Umask, "unalias": Alias, "unset": Variable, "enable": Alias, "((": Variable, "nameref": Variable,
}

// effects records what a command does to the shell: hazards, variables, options in force.
func (w *walker) effects(c *Command) {
	if len(c.Words) == 0 {
		for _, a := range c.Assigns {
			w.s.sets.add(a.Name)
		}
		if len(c.Assigns) > 0 {
			w.commandHazard(Variable, c)
		}
		return
	}
	if w.s.Shell == nil { // exec form: no builtins
		w.programReads(c)
		return
	}
	if !c.Words[0].Literal && !slashed(c.Words[0]) {
		// Any builtin may be behind it.
		w.unknown(c)
		return
	}
	w.programReads(c)
	name := c.Name()
	for _, wrapper := range c.Wrappers {
		switch wrapper {
		case "builtin", "command", "time":
			if name == "" {
				w.unknown(c)
				return
			}
		case "exec":
			name = "exec"
		default:
			return // a program, never a builtin
		}
		if name == "exec" {
			break
		}
	}
	if len(c.Assigns) > 0 && (c.Function || slices.Contains(specials, name)) {
		for _, a := range c.Assigns {
			w.s.sets.add(a.Name)
		}
		w.commandHazard(Variable, c)
	}
	kind, ok := builtins[name]
	if !ok || name == "return" && c.inFunction {
		return
	}
	w.commandHazard(kind, c)
	w.builtin(c, name)
}

// unknown is a command that may be any builtin.
func (w *walker) unknown(c *Command) {
	w.s.reads.all, w.s.sets.all = true, true
	w.errexit, w.pipefail, w.exited = false, false, true
	w.commandHazard(Eval, c)
}

// specials are the builtins after which an assignment before them stays.
var specials = []string{".", ":", "eval", "exec", "exit", "export", "readonly", "return", "set", "shift", "times", "trap", "unset"}

// slashed reports whether a word has a plain slash: what it names is a program.
func slashed(w Word) bool {
	for _, p := range w.parts {
		if q, ok := p.(*syntax.DblQuoted); ok && slashed(Word{parts: q.Parts}) {
			return true
		}
		if lit, ok := p.(*syntax.Lit); ok && strings.Contains(lit.Value, "/") {
			return true
		}
	}
	return false
}

// builtin is what the hazards mean for the rest of the script.
func (w *walker) builtin(c *Command, name string) {
	args := c.Args()
	switch name {
	case ".", "source", "eval":
		w.s.reads.all, w.s.sets.all = true, true
		w.errexit, w.pipefail, w.exited = false, false, true
	case "exit", "exec", "return":
		if name != "exec" || len(args) > 0 || len(c.Wrappers) > 0 {
			w.exited = true
		}
	case "set":
		w.set(c, args)
	case "alias":
		w.s.reads.all = true
		for _, a := range args {
			name, _, _ := strings.Cut(a.Raw, "=")
			w.functions = append(w.functions, name)
		}
	case "declare", "typeset", "export", "readonly", "local", "nameref", "read", "unset", "mapfile", "readarray", "getopts":
		w.names(name, args)
	case "cd", "chdir":
		w.s.sets.add("PWD")
		w.s.sets.add("OLDPWD")
		if len(args) == 0 {
			w.s.reads.add("HOME")
		} else if args[0].Literal && args[0].Value == "-" {
			w.s.reads.add("OLDPWD")
		}
		w.s.reads.add("CDPATH")
	case "trap":
		w.s.reads.all, w.s.sets.all = true, true // its action is not looked into
	}
}

// set follows -e and pipefail. Switching on counts where it is certain, switching off everywhere.
func (w *walker) set(c *Command, args []Word) {
	if len(args) == 0 {
		w.s.reads.all = true
		return
	}
	certain := !c.Conditional && !c.Piped && !c.Background && !c.inFunction // in a subshell it holds up to its end
	for i := 0; i < len(args); i++ {
		a := args[i]
		if !a.Literal {
			w.errexit, w.pipefail = false, false
			return
		}
		if a.Value == "--" || len(a.Value) < 2 || a.Value[0] != '-' && a.Value[0] != '+' {
			return
		}
		on := a.Value[0] == '-'
		for _, option := range a.Value[1:] {
			name := ""
			if option == 'o' && i+1 < len(args) {
				i++
				name = args[i].Value
			}
			switch {
			case option == 'e' || name == "errexit":
				w.errexit = on && (w.errexit || certain)
				c.Unchecked = c.Unchecked && !w.errexit // it cannot fail
			case name == "pipefail":
				w.pipefail = on && (w.pipefail || certain)
			case option == 'n':
				w.exited = true
			}
		}
	}
}

// names are the variables that a builtin sets, those before the = if there is one.
func (w *walker) names(builtin string, args []Word) {
	if builtin == "getopts" {
		w.s.sets.add("OPTARG")
		w.s.sets.add("OPTIND")
	}
	prints := true
	for i, a := range args {
		switch {
		case builtin == "getopts" && i == 0:
			continue
		case strings.HasPrefix(a.Raw, "-"):
			if strings.Contains(a.Raw, "p") && builtin != "read" || strings.Contains(a.Raw, "n") && builtin != "read" && builtin != "export" {
				w.s.reads.all = true // printing, and namerefs
			}
			continue
		}
		prints = false
		name, _, _ := strings.Cut(a.Raw, "=")
		name = strings.TrimSuffix(name, "+")
		name, _, _ = strings.Cut(name, "[")
		if !syntax.ValidName(name) {
			if builtin != "read" || a.Literal && !strings.HasPrefix(args[max(i-1, 0)].Raw, "-") || !a.Literal {
				w.s.sets.all = true
			}
			continue
		}
		w.s.sets.add(name)
	}
	switch {
	case !prints:
	case builtin == "read":
		w.s.sets.add("REPLY")
	case builtin == "mapfile", builtin == "readarray":
		w.s.sets.add("MAPFILE")
	default:
		w.s.reads.all = true
	}
}

// programReads are commands whose purpose is to look at variables.
func (w *walker) programReads(c *Command) {
	switch name := c.Name(); name {
	case "env", "printenv", "envsubst":
		if names := c.Operands(); name == "printenv" && len(names) > 0 && c.Literal() {
			for _, n := range names {
				w.s.reads.add(n.Value)
			}
			return
		}
		w.s.reads.all = true
	case "printf":
		if w2, ok := c.Flag("-v"); ok {
			w.s.sets.add(w2.Value)
			w.s.sets.all = w.s.sets.all || !w2.Literal
			w.commandHazard(Variable, c)
		}
	case "[", "test":
		for i, a := range c.Args() {
			if a.Literal && (a.Value == "-v" || a.Value == "-R") && i+1 < len(c.Args()) {
				name, _, _ := strings.Cut(c.Args()[i+1].Value, "[")
				w.s.reads.add(name)
				w.s.reads.all = w.s.reads.all || !c.Args()[i+1].Literal
			}
		}
	}
	for _, a := range c.Words {
		// awk's ENVIRON, os.environ, process.env, ENV['x'] ... in programs given on the command line, and /proc/self/environ.
		if a.Literal && environment(a.Value) || !a.Literal && environment(a.Raw) {
			w.s.reads.all = true
		}
	}
}

var environmentWords = []string{"ENVIRON[", "os.environ", "/environ", "process.env", "getenv", "ENV[", "%ENV", "$ENV{"}

func environment(text string) bool {
	return slices.ContainsFunc(environmentWords, func(word string) bool { return strings.Contains(text, word) })
}

func (w *walker) commandHazard(kind Kind, c *Command) {
	h := Hazard{Kind: kind, Text: w.s.Text[c.Start:c.End], Start: c.Start, End: c.End, Nested: c.Subshell && kind != Background}
	args := c.Args()
	switch {
	case kind == Cd && len(args) > 0 && args[len(args)-1].Literal:
		h.Target = args[len(args)-1].Value
	case kind == Option && c.Literal():
		var values []string
		for _, a := range args {
			values = append(values, a.Value)
		}
		h.Target = strings.Join(values, " ")
	}
	w.s.hazards = append(w.s.hazards, h)
}
