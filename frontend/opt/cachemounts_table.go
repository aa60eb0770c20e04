package opt

import (
	"path"
	"slices"
	"strings"

	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/script"
)

// cacheTool is one program's download cache: a row of cacheTools.
//
// A row says `files` only if whatever may be in the cache, from any earlier build of any Dockerfile, gives the result that an empty cache
// gives; its comment says why that is so. All other rows are `observed`.
type cacheTool struct {
	name     string
	title    string   // for people, "" for "download cache of" name
	programs []string // what fills it
	kin      []string // other programs that read it
	fills    func(script.Command) bool
	asks     [][]string                // operands with which they look into it
	empties  [][]string                // arguments with which they do nothing but empty it; a step is right without such a command
	offline  []string                  // flags of its programs, and other text of a Dockerfile, that make do with what is in the cache
	state    func(script.Command) bool // commands that put into it what cannot be downloaded
	vars     []string                  // variables that move it or switch it off
	names    []string                  // text by which another instruction would name it; paths are found without
	traces   string                    // what a command that empties it leaves beside it
	private  string                    // a directory below HOME that is only the tool's, where a step that is not root's needs one of its own
	anyBase  bool                      // what a base image may have in it does not matter
	strict   bool                      // what is in it is an input of later steps as well
	place    func(*cacheUse) ([]cacheMount, string)
	keeps    func(*cacheUse) (Keeps, string)
}

// cacheMount is one --mount.
type cacheMount struct {
	kind         string // "" is cache
	target       string
	id, sharing  string
	from, source string
}

// cacheUse is a tool at work in a step.
type cacheUse struct {
	tool     *cacheTool
	script   *script.Script
	commands []script.Command // that fill the cache
	at       *plan.State
	home     string
	image    string // the base image's name
	official bool   // it is an official image that is known by heart
	from     string // the base image's name for use in a mount, "" if it cannot be used there
	strange  string // a program before the first command that may do anything, "" if there is none
	chain    string // the text of the stage up to the step, and of those that it builds on
	unknown  string // a variable that was asked for and whose value is not known
}

// env is a variable as the commands see it, "" if it is not set.
func (u *cacheUse) env(name string) string {
	if sets, _ := u.script.Sets(); slices.Contains(sets, name) {
		u.unknown = name
		return ""
	}
	v, _, known := u.at.Lookup(name)
	value := ""
	for i, c := range u.commands {
		here, ok := v.Value, known
		for _, a := range c.Assigns {
			if a.Name == name {
				here, ok = a.Value.Expand(u.lookup)
			}
		}
		if !ok || i > 0 && here != value {
			u.unknown = name
		}
		value = here
	}
	return value
}

// known is env for a variable without which the tool is merely less well known.
func (u *cacheUse) known(name string) (value string, ok bool) {
	before := u.unknown
	u.unknown = ""
	value = u.env(name)
	ok, u.unknown = u.unknown == "", before
	return value, ok
}

// env1 is the first of the variables that is set.
func (u *cacheUse) env1(names ...string) string {
	for _, n := range names {
		if v := u.env(n); v != "" {
			return v
		}
	}
	return ""
}

func (u *cacheUse) lookup(name string) (string, bool) {
	v, set, known := u.at.Lookup(name)
	if name == "HOME" && !set {
		return u.home, u.home != ""
	}
	return v.Value, known
}

// xdg is the tool's directory below ~/.cache.
func (u *cacheUse) xdg(name string) string {
	if d := u.env("XDG_CACHE_HOME"); d != "" {
		return path.Join(d, name)
	}
	return path.Join(u.home, ".cache", name)
}

// flag is the value of a flag of the commands, "" if none has it.
func (u *cacheUse) flag(names ...string) string {
	value := ""
	for i, c := range u.commands {
		w, has := c.Flag(names...)
		v, ok := w.Expand(u.lookup)
		if has && !ok || i > 0 && v != value {
			u.unknown = names[0]
		}
		value = v
	}
	return value
}

func (u *cacheUse) anyFlag(names ...string) bool {
	return slices.ContainsFunc(u.commands, func(c script.Command) bool { return c.HasFlag(names...) })
}

// at makes cache mounts of directories.
func dirs(sharing string, targets ...string) []cacheMount {
	var list []cacheMount
	for _, t := range targets {
		list = append(list, cacheMount{target: t, sharing: sharing})
	}
	return list
}

func (m cacheMount) flag(uid, gid string) string {
	var b strings.Builder
	kind := m.kind
	if kind == "" {
		kind = "cache"
	}
	b.WriteString("--mount=type=" + kind)
	for _, kv := range [][2]string{{"id", m.id}, {"from", m.from}, {"source", m.source}, {"target", m.target}, {"sharing", m.sharing}} {
		if kv[1] != "" {
			b.WriteString("," + kv[0] + "=" + kv[1])
		}
	}
	if kind == "cache" && uid != "" {
		b.WriteString(",uid=" + uid)
		if gid != "" {
			b.WriteString(",gid=" + gid)
		}
	}
	return b.String()
}

// operands is a test for commands whose first operand is one of the words.
func operands(words ...string) func(script.Command) bool {
	return func(c script.Command) bool {
		ops := c.Operands()
		return len(ops) > 0 && ops[0].Literal && slices.Contains(words, ops[0].Value)
	}
}

// starts reports whether the command's operands start with one of the lists.
func starts(c script.Command, lists [][]string) bool {
	ops := c.Operands()
	return slices.ContainsFunc(lists, func(list []string) bool {
		for i, word := range list {
			if i >= len(ops) || !ops[i].Literal || ops[i].Value != word {
				return false
			}
		}
		return true
	})
}

// idle are flags that change nothing about what a cleaning command cleans.
var idle = []string{"-f", "--force", "-q", "-qq", "--quiet", "-y", "-yq", "-qy", "--yes"}

// is reports whether the command's arguments are one of the lists, idle flags aside.
func is(c script.Command, lists [][]string) bool {
	var args []string
	for _, w := range c.Args() {
		if !w.Literal {
			return false
		}
		if !slices.Contains(idle, w.Value) {
			args = append(args, w.Value)
		}
	}
	return len(c.Redirects) == 0 && slices.ContainsFunc(lists, func(list []string) bool { return slices.Equal(list, args) })
}

func alwaysKeeps(k Keeps, why string) func(*cacheUse) (Keeps, string) {
	return func(*cacheUse) (Keeps, string) { return k, why }
}
