package lint

import (
	"path"
	"strings"

	"github.com/moby/patternmatcher"
)

// remote reports whether ADD fetches the source.
func remote(source string) bool {
	return strings.Contains(source, "://") || strings.HasPrefix(source, "git@")
}

// contextPath is a source as a path of the context, "." for all of it.
func contextPath(source string) string {
	return strings.TrimPrefix(path.Clean("/"+source), "/") + dotIf(strings.Trim(path.Clean("/"+source), "/") == "")
}

func dotIf(yes bool) string {
	if yes {
		return "."
	}
	return ""
}

// takes reports whether the copy takes a file of the context: by its own name, by a pattern, or with a directory.
func (cc contextCopy) takes(name string) bool {
	for _, e := range cc.exclude {
		if m, err := patternmatcher.New([]string{e}); err == nil {
			if ok, err := m.MatchesOrParentMatches(name); ok && err == nil {
				return false
			}
		}
	}
	for _, src := range cc.sources {
		if src == "." {
			return true
		}
		for at := name; at != "."; at = path.Dir(at) {
			if ok, err := path.Match(src, at); at == src || ok && err == nil {
				return true
			}
		}
	}
	return false
}

// names reports whether the copy names the path itself, or one below it, rather than a directory above it.
func (cc contextCopy) names(name string) bool {
	for _, src := range cc.sources {
		if src == name || strings.HasPrefix(src, name+"/") {
			return true
		}
		for at := src; at != "."; at = path.Dir(at) {
			if ok, err := path.Match(at, name); ok && err == nil && at != "*" {
				return true
			}
		}
	}
	return false
}

// whole reports whether the copy takes all of the context.
func (cc contextCopy) whole() bool {
	for _, src := range cc.sources {
		if src == "." || src == "*" {
			return true
		}
	}
	return false
}
