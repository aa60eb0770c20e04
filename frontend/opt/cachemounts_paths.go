package opt

import (
	"path"
	"slices"
	"strings"

	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/script"
)

// pathRelation is how a path, which may be a pattern, stands to a directory.
type pathRelation int

const (
	pathApart pathRelation = iota
	pathAbove              // the path is a directory that has the other one somewhere below it
	pathSame
	pathBelow
)

func relate(pattern, dir string) pathRelation {
	if !path.IsAbs(pattern) {
		return pathApart
	}
	a, b := elements(pattern), elements(dir)
	for i := range min(len(a), len(b)) {
		if ok, err := path.Match(a[i], b[i]); !ok && err == nil {
			return pathApart
		}
	}
	switch {
	case len(a) < len(b):
		return pathAbove
	case len(a) > len(b):
		return pathBelow
	}
	return pathSame
}

func elements(p string) []string {
	return strings.FieldsFunc(path.Clean(p), func(c rune) bool { return c == '/' })
}

// shellWalk follows a script's working directory.
type shellWalk struct {
	r   *cacheReaders
	at  *plan.State
	sc  *script.Script
	cwd []string // all that it may be; nil: not known
}

func (r *cacheReaders) walk(st *plan.Stage, i int) *shellWalk {
	at := r.m.flow(st)[i]
	sc, _ := r.m.script(st, i)
	w := &shellWalk{r: r, at: &at, sc: sc}
	if at.DirOK {
		w.cwd = []string{at.Dir}
	}
	return w
}

// next is the directory in which the command runs; the walk then is behind it.
func (w *shellWalk) next(c script.Command) []string {
	cwd := w.cwd
	if name := c.Name(); name != "cd" && name != "pushd" && name != "chdir" {
		return cwd
	}
	var to []string
	args := c.Args()
	if len(args) == 0 {
		to = []string{w.r.u.home}
	} else {
		to = w.paths(args[len(args)-1], cwd)
	}
	if c.Conditional || c.Subshell {
		to = append(slices.Clone(cwd), to...)
	}
	w.cwd = to
	return cwd
}

// paths are the paths that a word may stand for, with * where it is not known. Words that are flags give those behind a =.
func (w *shellWalk) paths(word script.Word, cwd []string) []string {
	value, ok := word.Expand(w.sc.Lookup(func(name string) (string, bool) {
		v, set, known := w.at.Lookup(name)
		if name == "HOME" && !set {
			return w.r.u.home, true
		}
		return v.Value, known
	}))
	if !ok {
		value = w.guess(word.Raw)
	}
	if flag, v, ok := strings.Cut(value, "="); ok && !strings.Contains(flag, "/") {
		value = v
	}
	switch {
	case value == "" || strings.HasPrefix(value, "-"):
		return nil
	case path.IsAbs(value):
		return []string{value}
	}
	var list []string
	for _, dir := range cwd {
		list = append(list, path.Join(dir, value))
	}
	return list
}

// guess makes a pattern of a word that has a variable, a tilde or braces in it.
func (w *shellWalk) guess(raw string) string {
	raw = strings.NewReplacer(`"`, "", `'`, "", "${HOME}", w.r.u.home, "$HOME", w.r.u.home).Replace(raw)
	if raw == "~" || strings.HasPrefix(raw, "~/") {
		raw = w.r.u.home + raw[1:]
	}
	if i := strings.IndexAny(raw, "$`{"); i == 0 {
		return ""
	} else if i > 0 {
		raw = raw[:i] + "*"
	}
	return raw
}

// command looks for operands of a program that is not the tool, or does something else with it: in the cache, or above it for programs that may look at
// whatever is below their operands.
func (r *cacheReaders) command(c script.Command, cwd []string, walk *shellWalk) (name, why string) {
	for _, word := range r.u.tool.names {
		if strings.Contains(r.text(c), word) {
			return "named", "`" + r.text(c) + "` has " + word + " in it"
		}
	}
	text := strings.NewReplacer("${HOME}", "$HOME").Replace(r.text(c))
	for _, redirect := range c.Redirects {
		text += " " + redirect.Heredoc.Raw
	}
	if token := r.token(text); token != "" {
		return "named", "`" + r.text(c) + "` has " + token + " in it"
	}
	words := c.Args()
	for _, redirect := range c.Redirects {
		words = append(words, redirect.Target)
	}
	for _, a := range c.Assigns {
		words = append(words, a.Value)
	}
	for _, w := range words {
		for _, p := range walk.paths(w, cwd) {
			switch r.nearest(p) {
			case pathSame, pathBelow:
				return "named", "`" + r.text(c) + "` has a path in the cache"
			case pathAbove:
				if !shallow(c) {
					return "swept", "`" + r.text(c) + "` may look at the cache, which is below " + path.Clean(p)
				}
			}
		}
	}
	if looksAround(c) {
		for _, dir := range cwd {
			if r.nearest(dir) != pathApart {
				return "swept", "`" + r.text(c) + "` may look at the cache, which is below " + dir
			}
		}
	}
	return "", ""
}

// looksAround reports whether a program looks at what is below the directory in which it runs, for want of an operand that says where to look.
func looksAround(c script.Command) bool {
	args := c.Args()
	switch c.Name() {
	case "find":
		return len(args) == 0 || strings.HasPrefix(args[0].Raw, "-")
	case "du", "tree":
		return len(c.Operands()) == 0
	case "ls":
		return c.HasFlag("-R", "--recursive") && len(c.Operands()) == 0
	case "grep", "egrep", "fgrep", "rg":
		return (c.Name() == "rg" || c.HasFlag("-r", "-R", "--recursive")) && len(c.Operands()) < 2
	}
	return false
}

// shallow programs do nothing with what is below their operands.
func shallow(c script.Command) bool {
	switch c.Name() {
	case "cd", "chdir", "pushd", "mkdir", "echo", "printf", "export", "[", "[[", "test", "touch", "useradd", "adduser", "groupadd", "addgroup", "usermod", "":
		return len(c.Words) > 0 || len(c.Assigns) > 0
	case "chmod", "chown", "chgrp":
		return !c.HasFlag("-R", "--recursive")
	case "ls":
		return !c.HasFlag("-R", "--recursive") && !c.Piped && len(c.Redirects) == 0
	case "tar":
		ops := c.Operands()
		return c.HasFlag("-x", "--extract") || len(ops) > 0 && strings.HasPrefix(ops[0].Value, "x")
	case "unzip":
		return true
	}
	return false
}

// plainPrograms do what their operands say and run nothing else: they read no cache that is not named.
var plainPrograms = []string{
	"[", "[[", "addgroup", "adduser", "apt-get", "basename", "cat", "cd", "chgrp", "chmod", "chown", "cp", "curl", "cut", "date", "dirname", "echo", "exit", "export",
	"false", "getent", "grep", "groupadd", "gunzip", "gzip", "head", "id", "install", "ln", "locale-gen", "ls", "md5sum", "mkdir", "mktemp", "mv", "printf", "pwd", "rm", "rmdir",
	"set", "sha256sum", "sha512sum", "sleep", "sort", "stat", "tail", "tar", "tee", "test", "touch", "tr", "true", "uname", "uniq", "unset", "unzip", "update-ca-certificates",
	"useradd", "usermod", "wc", "wget", "which", ":",
}

func plainProgram(c script.Command) bool {
	return slices.Contains(plainPrograms, c.Name()) || len(c.Words) == 0
}

func programOf(c script.Command) string {
	if name := c.Name(); name != "" {
		return name
	}
	if len(c.Words) > 0 {
		return c.Words[0].Raw
	}
	return c.Assigns[0].Name
}
