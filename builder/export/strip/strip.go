// Package strip knows what package managers leave behind in an image that nothing in it needs.
//
// What comes in is a selection of rules (--strip) and the configuration of an image; what goes out is a [Stripper], which says of one path whether it is residue, and by
// which rule. There are two ways to know: a name that only the tool gives (~/.cache/pip), or, below a directory that may be anything since a variable named it, what the tool makes
// there in its own form (sha224 names in five levels of directories, a gem that is installed beside). For the second the package asks what is in the image, see [Look]; whether the base
// image had the path, or a COPY put it there, is for the caller to know, who must keep it then.
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
	// Paths are where it lies by a name that only the tool gives.
	Paths []Path
	// Trees are where it lies in directories that may have other things, too, or be something else altogether.
	Trees []Tree
}

// Path is a place of residue. It stands for what it matches and for all that is below that.
type Path struct {
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
	finders []finder
	kept    []string
	read    []string
}

// finder finds residue of one rule.
type finder interface {
	// find tells whether an absolute path is residue, and, if the finder goes by forms, the directory below which it is.
	find(path string, look Look) (root string, ok bool)
	// may is find with each question about the image answered in favour of residue.
	may(path string) bool
	rule() string
	key() string
	// literal is what all paths that are found begin with.
	literal() string
}

// Residue says what a path is.
type Residue struct {
	// Rule is the name of the rule by which it is residue; "" if it is none.
	Rule string
	// Root is the directory below which it is residue by its form. The directories between that and the path have no use without it; what else is in them stays. It is "" if a rule
	// knows the path by its name.
	Root string
}

// New returns the Stripper of some rules for an image. read are paths that its program is known to read: they are never residue.
func New(set Set, c Config, read ...string) *Stripper {
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
			for _, base := range inHomes(p.Base, homes) {
				s.finders = append(s.finders, newPattern(r.Name, path.Join(base, p.Below)))
			}
		}
		for _, t := range r.Trees {
			s.finders = append(s.finders, t.finders(r.Name, env, homes)...)
		}
	}
	s.kept = c.named()
	for _, p := range read {
		if p = path.Join("/", p); slices.ContainsFunc(s.finders, func(f finder) bool { return f.may(p) }) {
			s.read = append(s.read, p)
		}
	}
	slices.Sort(s.read)
	s.read = slices.Compact(s.read)
	return s
}

// inHomes are the places that a path may stand for.
func inHomes(p string, homes []string) (list []string) {
	rest, ok := strings.CutPrefix(p, "~")
	if !ok {
		return []string{p}
	}
	for _, h := range homes {
		list = append(list, h+rest)
	}
	return list
}

// Empty is true of a Stripper that finds nothing.
func (s *Stripper) Empty() bool { return s == nil || len(s.finders) == 0 }

// Find tells what an absolute path is.
func (s *Stripper) Find(p string, look Look) Residue {
	if s == nil {
		return Residue{}
	}
	for _, f := range s.finders {
		if root, ok := f.find(p, look); ok {
			if s.keeps(p) {
				return Residue{}
			}
			return Residue{f.rule(), root}
		}
	}
	return Residue{}
}

// Near is false if neither an absolute path nor any below it can be residue.
func (s *Stripper) Near(p string) bool {
	return s != nil && slices.ContainsFunc(s.finders, func(f finder) bool {
		l := f.literal()
		return strings.HasPrefix(p, l) || strings.HasPrefix(l, p+"/") || p == "/"
	})
}

// keeps is true for a path that the image's configuration names, or that is below one that it names, and for one that the program reads.
func (s *Stripper) keeps(p string) bool {
	if _, ok := slices.BinarySearch(s.read, p); ok {
		return true
	}
	return slices.ContainsFunc(s.kept, func(k string) bool { return p == k || strings.HasPrefix(p, k+"/") })
}

// Key is a text that is the same for Strippers that find the same.
func (s *Stripper) Key() string {
	if s == nil {
		return ""
	}
	var b strings.Builder
	for _, f := range s.finders {
		fmt.Fprintf(&b, "%s %s\n", f.rule(), f.key())
	}
	for _, k := range s.kept {
		fmt.Fprintf(&b, "kept %q\n", k)
	}
	for _, r := range s.read {
		fmt.Fprintf(&b, "read %q\n", r)
	}
	return b.String()
}
