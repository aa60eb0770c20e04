package request

import (
	"regexp"
	"slices"
	"strings"
)

// pragma is a comment for optbuild. The compiler has its own reading of them (frontend/plan), which knows stages and steps; what concerns the
// context can only stand in a file's first lines.
var pragma = regexp.MustCompile(`(?i)^[ \t]*#[ \t]*optbuild:[ \t]*(?:off|keep)(?:[ \t]*=[ \t]*([a-z0-9,\- \t]+?))?[ \t]*\r?\n?$`)

// switchedOff says whether a Dockerfile's first lines, before its first instruction, switch something off.
func switchedOff(dockerfile []byte, name string) bool {
	for line := range strings.Lines(string(dockerfile)) {
		text := strings.TrimSpace(line)
		if text != "" && !strings.HasPrefix(text, "#") {
			return false
		}
		m := pragma.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		names := strings.FieldsFunc(m[1], func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
		if len(names) == 0 || slices.Contains(names, name) {
			return true
		}
	}
	return false
}
