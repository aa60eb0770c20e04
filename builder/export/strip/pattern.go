package strip

import (
	"fmt"
	"path"
	"strings"
)

// pattern finds what lies at a path, or below it.
type pattern struct {
	name  string // of the rule
	text  string
	begin string   // what all paths that match begin with
	parts []string // of text
}

func newPattern(rule, text string) pattern {
	literal := text
	if i := strings.IndexAny(text, `*?[\`); i >= 0 {
		literal = text[:i]
	}
	return pattern{rule, text, literal, strings.Split(strings.TrimPrefix(text, "/"), "/")}
}

func (p pattern) literal() string { return p.begin }

func (p pattern) rule() string { return p.name }

func (p pattern) key() string { return fmt.Sprintf("%q", p.text) }

func (p pattern) find(name string, _ Look) (string, bool) { return "", p.may(name) }

func (p pattern) may(name string) bool {
	return strings.HasPrefix(name, p.begin) && matchParts(p.parts, strings.Split(strings.TrimPrefix(name, "/"), "/"))
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
