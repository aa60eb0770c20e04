package strip

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Tree is a tool's directory at places that may be anything: PIP_CACHE_DIR=/srv is allowed, and /srv may have a web site in it. So nothing is residue there because of where it is, but only
// what has a form that the tool gives it and nobody else would.
type Tree struct {
	Roots []Root
	Forms []Form
}

// Root is a directory of a tool.
type Root struct {
	// Var is an environment variable that names it, as far as Dir does not; if it lists several (GOPATH), the first counts, where things are put.
	Var string
	// Dir is relative to what Var says; without a Var it is absolute, with "~" for homes, and a star stands for any part of a name.
	Dir string
}

// Form is what residue looks like below a root.
type Form struct {
	// Path is a regular expression of the whole of a path relative to the root. What matches is residue with all that is below it.
	Path string
	// Beside are paths relative to the root that must be there, $1 and the like filled in from Path.
	Beside []string
	// Tagged says that the root must have a CACHEDIR.TAG.
	Tagged bool
}

// Look tells what there is in the image: the beginning of a file, at least as much as Head bytes if it has so many; nothing of a directory. A file that a COPY brought need not be found:
// nothing that is proved with it is residue then.
type Look func(path string) (head []byte, ok bool)

// Head is how much of a file is ever looked at.
const Head = len(signature)

// signature is what a CACHEDIR.TAG begins with (https://bford.info/cachedir).
const signature = "Signature: 8a477f597d28d172789f06886806bc55"

// finders are those of each form below each root.
func (t Tree) finders(rule string, env map[string]string, homes []string) (list []finder) {
	var roots []string // patterns
	for _, r := range t.Roots {
		if r.Var == "" {
			roots = append(roots, inHomes(r.Dir, homes)...)
		} else if v, _, _ := strings.Cut(env[r.Var], ":"); path.IsAbs(v) {
			roots = append(roots, quoted.Replace(path.Join(v, r.Dir)))
		}
	}
	slices.Sort(roots)
	for _, root := range slices.Compact(roots) {
		root = strings.TrimSuffix(root, "/") + "/"
		literal, _, _ := strings.Cut(root, "*")
		expr := "^"
		for i, part := range strings.Split(root, "*") {
			if i > 0 {
				expr += "[^/]*"
			}
			expr += regexp.QuoteMeta(unquoted.Replace(part))
		}
		for _, f := range t.Forms {
			list = append(list, tree{rule, unquoted.Replace(literal), regexp.MustCompile(expr), regexp.MustCompile("^(?:" + f.Path + ")(?:/.*)?$"), f})
		}
	}
	return list
}

// A star in the value of a variable is one.
var (
	quoted   = strings.NewReplacer("*", "\x00")
	unquoted = strings.NewReplacer("\x00", "*")
)

// tree finds what has a form below a root.
type tree struct {
	name  string // of the rule
	begin string // what all paths that match begin with
	root  *regexp.Regexp
	below *regexp.Regexp
	form  Form
}

func (t tree) literal() string { return t.begin }

func (t tree) rule() string { return t.name }

func (t tree) key() string {
	return fmt.Sprintf("%q %q %q %t", t.root, t.form.Path, t.form.Beside, t.form.Tagged)
}

func (t tree) may(p string) bool {
	_, _, match := t.match(p)
	return match != nil
}

func (t tree) find(p string, look Look) (string, bool) {
	root, rest, match := t.match(p)
	if match == nil {
		return "", false
	}
	if t.form.Tagged {
		head, ok := look(root + "CACHEDIR.TAG")
		if !ok || !strings.HasPrefix(string(head), signature) {
			return "", false
		}
	}
	for _, b := range t.form.Beside {
		there := path.Join(root, string(t.below.ExpandString(nil, b, rest, match)))
		if _, ok := look(there); !ok {
			return "", false
		}
	}
	return path.Clean(root), true
}

// match divides a path into its root, with a slash at the end, and the rest; match is nil if it is none of the form.
func (t tree) match(p string) (root, rest string, match []int) {
	if !strings.HasPrefix(p, t.begin) {
		return "", "", nil
	}
	if root = t.root.FindString(p); root == "" {
		return "", "", nil
	}
	rest = p[len(root):]
	return root, rest, t.below.FindStringSubmatchIndex(rest)
}
