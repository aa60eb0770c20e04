package lint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/optbuild/optbuild/frontend/opt"
	"github.com/optbuild/optbuild/frontend/plan"
)

// exporting are what pragmas can switch off besides passes: what is done to the context and to the image's layers. "strip-" stands before the name of a rule.
var exporting = []string{"git-modes", "squash", "strip"}

func unknownPragma(c *check) {
	known := append(opt.Names(), exporting...)
	told := map[string]bool{}
	look := func(s *plan.Step) {
		for _, name := range s.Off() {
			if name == "*" || told[name] || slices.Contains(known, name) || strings.HasPrefix(name, "strip-") {
				continue
			}
			told[name] = true
			before := len(c.findings)
			c.report(s, "", Finding{
				Message: fmt.Sprintf("%q in a comment for optbuild is the name of nothing that could be switched off", name),
				Remedy:  "take one of " + strings.Join(known, ", ") + " or strip-RULE",
			})
			if line := pragmaLine(c.p.Source, name); line > 0 && len(c.findings) > before {
				c.findings[before].Range = Range{Line: line, EndLine: line}
			}
		}
	}
	for _, st := range c.p.Stages {
		look(st.From)
		for _, s := range st.Steps {
			look(s)
		}
	}
}

// pragmaLine is the line of the comment that has the name, 0 if it is not found.
func pragmaLine(source []byte, name string) int {
	n := 0
	for line := range strings.Lines(string(source)) {
		n++
		_, pragma, ok := strings.Cut(strings.ToLower(line), "optbuild:")
		words := strings.FieldsFunc(pragma, func(r rune) bool { return strings.ContainsRune(" \t\r\n,=", r) })
		if ok && strings.HasPrefix(strings.TrimSpace(line), "#") && slices.Contains(words, strings.ToLower(name)) {
			return n
		}
	}
	return 0
}
