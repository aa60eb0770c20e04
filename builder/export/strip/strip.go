// Package strip knows what package managers leave behind in an image that nothing in it needs.
//
// What comes in is a selection of rules (--strip) and the configuration of an image; what goes out is a [Stripper], which says of one path whether it is residue, and by
// which rule. The package looks at no file: whether the base image had the path, or a COPY put it there, is for the caller to know, who must keep it then.
//
// The table is in rules.go, the page of each rule in README.md.
package strip

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Rule is one kind of residue.
type Rule struct {
	// Name is what users call it by.
	Name string
	// Default says that it is dropped unless the user wants otherwise.
	Default bool
	// Linked says that programs may be run from there through symbolic links. What an earlier layer has of it, and may keep for that, is not removed.
	Linked bool
	// Why is the reason why dropping it is safe; for a rule that is not on by default, who might miss it.
	Why string
	// Paths are where it lies.
	Paths []Path
}

// Path is a place of residue. It stands for what it matches and for all that is below that.
type Path struct {
	// Vars are environment variables that move the place: Base is what the first of them that is set says. What lies at the usual place is residue all the same.
	Vars []string
	// Base is an absolute path; "~" at its beginning is the home of each user.
	Base string
	// Below is a pattern relative to Base, as of path.Match; "**" stands for any number of directories.
	Below string
}

// Set names rules.
type Set []string

// Parse reads --strip: off, default, all, or names of rules separated by commas. A name with a minus before it is left out, and if the list begins with one of these
// the others are those of default.
func Parse(text string) (Set, error) {
	on := map[string]bool{}
	words := strings.Split(text, ",")
	for i, word := range words {
		word = strings.TrimSpace(word)
		name, minus := strings.CutPrefix(word, "-")
		if i == 0 && (minus || word == "") {
			add(on, func(r Rule) bool { return r.Default })
		}
		switch {
		case word == "":
		case word == "off" && len(words) == 1:
		case word == "default":
			add(on, func(r Rule) bool { return r.Default })
		case word == "all":
			add(on, func(Rule) bool { return true })
		case !slices.Contains(Names(), name):
			return nil, fmt.Errorf("%q is not off, default, all or one of %s", word, strings.Join(Names(), ", "))
		default:
			on[name] = !minus
		}
	}
	var set Set
	for _, r := range Rules {
		if on[r.Name] {
			set = append(set, r.Name)
		}
	}
	return set, nil
}

func add(on map[string]bool, wanted func(Rule) bool) {
	for _, r := range Rules {
		if wanted(r) {
			on[r.Name] = true
		}
	}
}

// String is the set as Parse reads it.
func (s Set) String() string {
	if len(s) == 0 {
		return "off"
	}
	return strings.Join(s, ",")
}

// Linked is true of a rule that is so.
func Linked(name string) bool {
	return slices.ContainsFunc(Rules, func(r Rule) bool { return r.Name == name && r.Linked })
}

// Names are the names of all rules, in the order of the table.
func Names() (names []string) {
	for _, r := range Rules {
		names = append(names, r.Name)
	}
	return names
}

// Stripper says what is residue in one image.
type Stripper struct {
	patterns []pattern
	kept     []string
}

// New returns the Stripper of some rules for an image.
func New(set Set, c Config) *Stripper {
	s := &Stripper{}
	env := c.environment()
	homes := []string{"/root", "/home/*"}
	if h := env["HOME"]; path.IsAbs(h) && path.Clean(h) != "/" {
		homes = append(homes, path.Clean(h))
	}
	for _, r := range Rules {
		if !slices.Contains(set, r.Name) {
			continue
		}
		for _, p := range r.Paths {
			for _, base := range p.bases(env, homes) {
				s.patterns = append(s.patterns, newPattern(r.Name, path.Join(base, p.Below)))
			}
		}
	}
	s.kept = c.named()
	return s
}

// bases are the places that a path may be below.
func (p Path) bases(env map[string]string, homes []string) (bases []string) {
	for _, name := range p.Vars {
		// A variable may list several directories (GOPATH): the first is where things are put.
		if v, _, _ := strings.Cut(env[name], ":"); path.IsAbs(v) && path.Clean(v) != "/" {
			bases = append(bases, path.Clean(v))
			break
		}
	}
	if rest, ok := strings.CutPrefix(p.Base, "~"); ok {
		for _, h := range homes {
			bases = append(bases, h+rest)
		}
	} else if p.Base != "" {
		bases = append(bases, p.Base)
	}
	return bases
}

// Empty is true of a Stripper that finds nothing.
func (s *Stripper) Empty() bool { return s == nil || len(s.patterns) == 0 }

// Rule is the name of the rule by which an absolute path is residue; "" if it is none.
func (s *Stripper) Rule(p string) string {
	if s == nil {
		return ""
	}
	for _, pat := range s.patterns {
		if pat.matches(p) {
			if s.keeps(p) {
				return ""
			}
			return pat.rule
		}
	}
	return ""
}

// keeps is true for a path that the image's configuration names, or that is below one that it names.
func (s *Stripper) keeps(p string) bool {
	return slices.ContainsFunc(s.kept, func(k string) bool { return p == k || strings.HasPrefix(p, k+"/") })
}

// Key is a text that is the same for Strippers that find the same.
func (s *Stripper) Key() string {
	if s == nil {
		return ""
	}
	var b strings.Builder
	for _, p := range s.patterns {
		fmt.Fprintf(&b, "%s %q\n", p.rule, p.text)
	}
	for _, k := range s.kept {
		fmt.Fprintf(&b, "kept %q\n", k)
	}
	return b.String()
}

// pattern is a rule's path, all variables filled in.
type pattern struct {
	rule    string
	text    string
	literal string   // what all paths that match begin with
	parts   []string // of text
}

func newPattern(rule, text string) pattern {
	literal := text
	if i := strings.IndexAny(text, `*?[\`); i >= 0 {
		literal = text[:i]
	}
	return pattern{rule, text, literal, strings.Split(strings.TrimPrefix(text, "/"), "/")}
}

func (p pattern) matches(name string) bool {
	return strings.HasPrefix(name, p.literal) && matchParts(p.parts, strings.Split(strings.TrimPrefix(name, "/"), "/"))
}

// matchParts is true if the pattern matches the name's first parts.
func matchParts(pattern, name []string) bool {
	for len(pattern) > 0 {
		if pattern[0] == "**" {
			for i := range name {
				if matchParts(pattern[1:], name[i:]) {
					return true
				}
			}
			return false
		}
		if len(name) == 0 {
			return false
		}
		if ok, _ := path.Match(pattern[0], name[0]); !ok {
			return false
		}
		pattern, name = pattern[1:], name[1:]
	}
	return true
}
