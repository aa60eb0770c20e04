// Package script knows the shell commands of a RUN: which simple commands it runs, which variables the text reads and sets,
// and what it does that a pass must not move or merge without care.
//
//	text of a RUN, shell ──> Parse ──> *Script ──> Commands, Straight, Reads, Sets, Hazards
//	words of an exec form ──> Exec ──┘
//
// What comes in is the text that the shell gets as the argument of -c: after the Dockerfile's lines were joined, and, for
// `RUN <<EOF`, the body alone (BuildKit runs it as the text; a body that starts with #! is a program and no business of this
// package). What goes out are values: nothing is run, no file is looked at, and no variable has a value.
//
// Terms. A *simple command* is what a shell calls so: assignments, words, redirects. A word is *literal* when its value is
// known without running anything: quotes are resolved, and it has no expansion, glob, brace or tilde. A command is
// *unchecked* when its failure does not fail the script, and *conditional* when the script can succeed without having run it.
//
// What it refuses to know: other shells than sh, bash, dash and ash (ErrShell); text that means something else to a shell
// than to the parser (ErrText); what a program does with its arguments and its environment. Any program may read every
// exported variable: Reads is about the text only, and whoever relies on more needs a table of programs.
//
// /bin/sh is dash, busybox or bash, depending on the image. What they read differently is never literal ($'a', {a,b}).
package script

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// ErrShell says that the shell is none that this package knows, or has an option that changes what a text means.
var ErrShell = errors.New("unknown shell")

// ErrText says that shells read the text in another way than the parser does.
var ErrText = errors.New("text that shells disagree about")

// SyntaxError is a text that does not parse.
type SyntaxError struct {
	Offset  uint // in bytes, from the start of the text
	Line    uint // from 1, 0 if unknown
	Column  uint // in bytes, from 1, 0 if unknown
	Message string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("%d:%d: %s", e.Line, e.Column, e.Message) }

// Script is a parsed text. It does not change.
type Script struct {
	Text  string   // as given; of an exec form the words, joined with spaces
	Shell []string // as given, or the default; nil for an exec form

	commands []Command
	hazards  []Hazard
	comments []Span
	reads    names
	sets     names
	chain    bool // one and-list
	control  bool // more than simple commands, whatever joins them
	compound bool // something other than simple commands joined by && ; or newlines
}

// Span is a part of a Text: bytes Start to End, without the one at End.
type Span struct{ Start, End uint }

// Parse reads the text of a shell form. No shell means the default, /bin/sh -c.
func Parse(text string, shell []string) (*Script, error) {
	return parse(text, shell, 0)
}

func parse(text string, shell []string, depth int) (*Script, error) {
	sh, err := readShell(shell)
	if err != nil {
		return nil, err
	}
	if err := disagreement(text); err != nil {
		return nil, err
	}
	file, err := sh.parse(text)
	if err != nil {
		return nil, fmt.Errorf("parse shell text: %w", err)
	}
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	s := &Script{Text: text, Shell: shell}
	w := walker{s: s, shell: sh, depth: depth, errexit: sh.errexit, pipefail: sh.pipefail}
	w.file(file)
	w.finish()
	s.chain = len(file.Stmts) == 1 && andList(file.Stmts[0]) && len(s.comments) == 0
	return s, nil
}

// Exec makes a script of an exec form: one simple command of literal words.
func Exec(args []string) *Script {
	s := &Script{Text: strings.Join(args, " ")}
	w := walker{s: s}
	var c Command
	for _, a := range args {
		c.Words = append(c.Words, Word{Raw: a, Value: a, Literal: true})
	}
	c.End = uint(len(s.Text))
	if len(args) > 0 {
		w.add(c)
	}
	w.finish()
	return s
}

// maxBytes is the kernel's limit for one argument: no shell ever gets a longer text.
const maxBytes = 128 << 10

// disagreement names the bytes that the parser drops and a shell does not, texts that a shell takes for an option, and places where
// the parser joins lines differently.
func disagreement(text string) error {
	switch i := strings.IndexAny(text, "\r\x00"); {
	case len(text) >= maxBytes:
		return fmt.Errorf("%w: %d bytes are more than a program's argument can have", ErrText, len(text))
	case i >= 0 && text[i] == '\r':
		return fmt.Errorf("%w: carriage return at byte %d", ErrText, i)
	case i >= 0:
		return fmt.Errorf("%w: NUL at byte %d", ErrText, i)
	case strings.Contains(text, "$\\\n"), strings.Contains(text, "\\\\\\\n"):
		return fmt.Errorf("%w: a line that is continued behind a dollar or a backslash", ErrText)
	case strings.HasPrefix(text, "-") || strings.HasPrefix(text, "+"):
		return fmt.Errorf("%w: it starts with %q, which is read as an option", ErrText, text[:1])
	}
	return nil
}

// Commands are all simple commands in the order of the text, those in substitutions, functions and `sh -c '...'` included. A command
// comes before those in its words.
func (s *Script) Commands() []Command { return slices.Clone(s.commands) }

// Straight gives the commands of a script that is nothing but simple commands, each of which must succeed before the next one
// starts: joined by &&, or by ; or newlines where -e is in force. No control flow, pipes, background, subshells, groups,
// functions or substitutions. A command `sh -c '...'` is fine; what it runs is not in the list.
func (s *Script) Straight() ([]Command, bool) {
	if s.compound {
		return nil, false
	}
	var straight []Command
	for _, c := range s.commands {
		if c.inner {
			continue
		}
		if c.Conditional || c.Unchecked || c.Background || c.Piped || c.Subshell {
			return nil, false
		}
		straight = append(straight, c)
	}
	return straight, true
}

// Chain reports whether the text may stand on either side of an && without changing what it means: it is one list joined by
// && only (whose members may be pipelines and compound commands), without comments. A heredoc must come last in its line all the same.
func (s *Script) Chain() bool { return s.chain }

// Simple reports whether there is nothing but simple commands, whatever joins them: no control flow, groups, subshells, functions
// or substitutions. Each command runs at most once.
func (s *Script) Simple() bool { return !s.control }

// Comments are the places of comments, in order.
func (s *Script) Comments() []Span { return slices.Clone(s.comments) }

// Hazards is what the script does that outlives a command or stops the script, in the order of the text.
func (s *Script) Hazards() []Hazard { return slices.Clone(s.hazards) }

// Reads are the variables that the text itself expands, sorted, those that it has set before included. With all, it may read
// any: env, printenv, eval, a sourced file, ${!x} and the like. An arithmetic expression counts for the names in it, though
// shells evaluate a variable that holds another's name. What programs read from their environment is not in it.
func (s *Script) Reads() (names []string, all bool) { return s.reads.sorted(), s.reads.all }

// MayRead reports whether the text, or the shell for its own needs, may read the variable.
func (s *Script) MayRead(name string) bool {
	return s.reads.all || s.reads.has(name) || s.Shell != nil && slices.Contains(shellReads, name) || name == "PATH"
}

// shellReads are variables that shells look at without being told so by the text.
var shellReads = []string{
	"BASHOPTS", "BASH_ENV", "BASH_XTRACEFD", "CDPATH", "ENV", "EXECIGNORE", "FIGNORE", "GLOBIGNORE", "HOME", "IFS", "LANG", "LC_ALL",
	"LC_COLLATE", "LC_CTYPE", "LC_MESSAGES", "LC_NUMERIC", "OLDPWD", "OPTIND", "PATH", "POSIXLY_CORRECT", "PS4", "PWD", "SHELLOPTS",
}

// Sets are the variables that the script assigns, exports, reads into or unsets, sorted, in subshells, too. Assignments for one
// command (A=b cmd) are not among them. With all, it may set any.
func (s *Script) Sets() (names []string, all bool) { return s.sets.sorted(), s.sets.all }

// Lookup is env for use with Word.Expand: variables that the script may set itself are unknown.
func (s *Script) Lookup(env func(name string) (string, bool)) func(string) (string, bool) {
	return func(name string) (string, bool) {
		if s.sets.all || s.sets.has(name) {
			return "", false
		}
		return env(name)
	}
}

// names is a set of variables.
type names struct {
	all  bool
	list []string
}

func (n *names) add(name string) {
	if name != "" && !slices.Contains(n.list, name) {
		n.list = append(n.list, name)
	}
}

func (n *names) addAll(o names) {
	n.all = n.all || o.all
	for _, name := range o.list {
		n.add(name)
	}
}

func (n *names) has(name string) bool { return slices.Contains(n.list, name) }

func (n *names) sorted() []string {
	list := slices.Clone(n.list)
	slices.Sort(list)
	return list
}

// base is the program's name, for a path in a directory for programs; other paths stay as they are.
func base(program string) string {
	switch dir, file := path.Split(program); dir {
	case "/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/", "/usr/local/bin/", "/usr/local/sbin/":
		return file
	}
	return program
}
