// Package scope decides where in a shared cache a build belongs.
//
// A shared cache is one repository of a registry in which each branch has a scope of its own: a build adds to the scope of its branch, and reads that one first, then
// the one of the branch that a pull request goes into, then the default branch's. So a branch's first build finds what its base has, and does not push out what others look for.
//
// What comes in is the environment, in which CI systems say what they build, and what git says of the context; what goes out is a [Scopes]. The package runs nothing and asks
// nobody. It knows no registry, no tags and no entries: scopes are plain names of branches here, and package cache/remote makes tags of them.
//
// Who builds code that is not the project's own must not fill the project's cache: a pull request from a fork reads only, and so does a build of which can't be told that
// it is none. That keeps honest pipelines apart; it is no fence. Whoever holds credentials that write to the repository can write to all of it, so pipelines that run code of
// strangers must not have them.
package scope

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
)

// Names of scopes that are no branch's.
const (
	// Default is of builds that are of no branch: no git, or a detached HEAD.
	Default = "default"
	// Tags is of all tags together. A tag is built once, so a scope for each would be written and never read; a scope for all of them has the last release's layers for the
	// next one, also where nothing but releases is ever built. They read the default branch's after it.
	Tags = "tags"
)

// Git is what git says of the context. The zero value is a directory of which it knows nothing.
type Git struct {
	Branch  string // that is checked out; "" if HEAD is detached
	Default string // of the remote, or a local main or master; "" if there is none
}

// Scopes says which scopes of a cache a build uses.
type Scopes struct {
	// Write is the scope that is added to, and that is read before all others. "" if none is.
	Write string
	// Read are the others that are read, in this order.
	Read []string
	// ReadOnly is why Write is "": some words for people. "" if it is not.
	ReadOnly string
	// Stranger says that the code that is built, and with it the context's own files, may be somebody else's.
	Stranger bool
	// Source is who told: the name of a CI system, "git", or "" if nobody did.
	Source string

	own     string // what Write is or would be
	unknown bool   // ReadOnly is for want of knowledge
}

// told is what a CI system says of a build.
type told struct {
	branch   string // that is built; of a pull request the one that it comes from
	target   string // that a pull request goes into
	standard string // the default branch
	tag      bool   // a tag is built
	pull     string // what a pull request is called there; "" if none is built
	fork     fork
	reason   string // why fork is unknown; there is a text for the common case
}

// fork says whether a pull request is from another repository.
type fork int

const (
	forkUnknown fork = iota
	forkNo
	forkYes
)

// OnCI is true where the environment is that of a CI system that is known.
func OnCI(env map[string]string) bool {
	return slices.ContainsFunc(systems, func(s system) bool { return s.here(env) })
}

// Decide finds the scopes of a build. git is called only if the environment has not told everything.
func Decide(env map[string]string, git func() Git) Scopes {
	git = sync.OnceValue(git)
	var t told
	s := Scopes{}
	for _, system := range systems {
		if system.here(env) {
			s.Source, t = system.name, system.ask(env)
			break
		}
	}
	t.branch, t.target, t.standard = clean(t.branch), clean(t.target), clean(t.standard)
	if queue, base, ok := mergeQueue(t.branch); ok && t.pull == "" {
		t.branch, t.target = queue, base
	}
	if t.branch == "" && !t.tag && t.pull == "" {
		if t.branch = clean(git().Branch); t.branch != "" && s.Source == "" {
			s.Source = "git"
		}
	}
	standard := []string{t.standard}
	if t.standard == "" {
		standard = []string{clean(git().Default)}
		if standard[0] == "" && s.Source != "" && s.Source != "git" { // checkouts of CI systems often have one branch only
			standard = []string{"main", "master"}
		}
	}
	s.own = cmp.Or(t.branch, Default)
	if t.tag {
		s.own = Tags
	}
	switch {
	case t.pull == "" && t.fork == forkUnknown && t.reason != "":
		s.ReadOnly, s.unknown = t.reason, true
	case t.pull == "":
	case t.fork == forkYes:
		s.ReadOnly = "a " + t.pull + " from a fork"
	case t.fork == forkUnknown:
		s.ReadOnly, s.unknown = cmp.Or(t.reason, "a "+t.pull+", and "+s.Source+" does not say whether it is from a fork"), true
	case t.branch == "":
		s.ReadOnly, s.unknown = "a "+t.pull+", and "+s.Source+" does not say of which branch", true
	}
	s.Stranger = s.ReadOnly != ""
	if s.ReadOnly == "" {
		s.Write = s.own
	}
	s.Read = distinct(append([]string{t.target}, standard...), s.Write)
	return s
}

// Named is the same build in a scope that the user named, in place of the branch's, which is read after it.
func (s Scopes) Named(name string) Scopes {
	read := s.Read
	if s.Write != "" {
		read = append([]string{s.Write}, read...)
		s.Write = name
	} else {
		read = append([]string{name}, read...)
	}
	s.own = name
	s.Read = distinct(read, s.Write)
	return s
}

// WithMode is the same build where the user said how the cache may be used: "ro" reads only; "rw" writes where it is merely not known that the build is the project's own, and
// never for what is known to be from a fork; "" changes nothing.
func (s Scopes) WithMode(mode string) Scopes {
	switch {
	case mode == ReadOnly && s.Write != "":
		s.Read = distinct(append([]string{s.Write}, s.Read...), "")
		s.Write, s.ReadOnly = "", "as asked for"
	case mode == ReadWrite && s.unknown:
		s.Write, s.ReadOnly, s.Stranger, s.unknown = s.own, "", false, false
		s.Read = distinct(s.Read, s.Write)
	}
	return s
}

// Unknown says that the build reads only since nothing tells whether it is the project's own.
func (s Scopes) Unknown() bool { return s.unknown }

// String is a line for people.
func (s Scopes) String() string {
	var b strings.Builder
	if s.Write != "" {
		b.WriteString("writes " + show(s.Write))
	} else {
		b.WriteString("read only, " + s.ReadOnly)
	}
	for i, name := range s.Read {
		b.WriteString([]string{"; reads ", ", then "}[min(i, 1)] + show(name))
	}
	if s.Source != "" {
		b.WriteString(" (" + s.Source + ")")
	}
	return b.String()
}

// show is a name as it can be printed. Names of branches come from whoever opens a pull request, and terminals obey some characters.
func show(name string) string {
	if quoted := strconv.Quote(name); strings.ContainsAny(name, " ,;()") || quoted != `"`+name+`"` {
		return quoted
	}
	return name
}

// maxName is what a scope's name may have in bytes: less than package cache/remote takes.
const maxName = 200

// clean is a branch's name, "" if it can't be one. A control character is in none: git refuses it. What is not UTF-8 is replaced, since names travel in messages that must be.
// The end of a very long one is its digest.
func clean(ref string) string {
	ref = strings.TrimPrefix(ref, "refs/heads/")
	if strings.ContainsFunc(ref, unicode.IsControl) {
		return ""
	}
	name := strings.ToValidUTF8(ref, "\uFFFD")
	if len(name) <= maxName {
		return name
	}
	end := fmt.Sprintf("-%x", sha256.Sum256([]byte(ref)))
	return strings.ToValidUTF8(name[:maxName-len(end)], "") + end
}

// distinct returns the names that are neither empty, nor the one left out, nor there already.
func distinct(names []string, without string) []string {
	var list []string
	for _, n := range names {
		if n != "" && n != without && !slices.Contains(list, n) {
			list = append(list, n)
		}
	}
	return list
}
