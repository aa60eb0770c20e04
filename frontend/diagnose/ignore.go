package diagnose

import (
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// IgnoreFile is a .dockerignore file.
type IgnoreFile struct {
	Name string // as the user knows it
	Text string
}

// rule is one line of an ignore file.
type rule struct {
	line    int
	pattern string // as it is written
}

// excludes returns the rule that excludes a path, if one does. As in docker, a rule holds for what is below its matches,
// and the last rule that matches decides.
func (f IgnoreFile) excludes(path string) (rule, bool) {
	var decided rule
	excluded := false
	for i, text := range strings.Split(f.Text, "\n") {
		patterns, err := ignorefile.ReadAll(strings.NewReader(text))
		if err != nil || len(patterns) != 1 {
			continue
		}
		pattern, exception := strings.CutPrefix(patterns[0], "!")
		m, err := patternmatcher.New([]string{pattern})
		if err != nil {
			continue
		}
		if ok, err := m.MatchesOrParentMatches(path); err != nil || !ok {
			continue
		}
		if excluded = !exception; excluded {
			decided = rule{line: i + 1, pattern: strings.TrimSpace(text)}
		}
	}
	return decided, excluded
}
