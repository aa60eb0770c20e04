package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/frontend/subrequests/lint"
)

// annotation is a line that GitHub's runner shows beside a line of a file.
// https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
type annotation struct {
	level       string // error, warning, notice
	title       string
	file        string // "" for none
	first, last int    // lines, 0 for none
	from, to    int    // columns of a single line, to exclusive, 0 for none
	message     string
}

var (
	escapeData     = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	escapeProperty = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
)

func (a annotation) String() string {
	var properties []string
	add := func(key, value string) { properties = append(properties, key+"="+escapeProperty.Replace(value)) }
	if a.file != "" {
		add("file", a.file)
		if a.first > 0 {
			add("line", fmt.Sprint(a.first))
			add("endLine", fmt.Sprint(a.last))
			if a.from > 0 && a.first == a.last { // the runner refuses columns of several lines
				add("col", fmt.Sprint(a.from))
				add("endColumn", fmt.Sprint(a.to))
			}
		}
	}
	add("title", a.title)
	return fmt.Sprintf("::%s %s::%s", a.level, strings.Join(properties, ","), escapeData.Replace(a.message))
}

// annotating says that somebody reads annotations.
func annotating() bool { return os.Getenv("GITHUB_ACTIONS") == "true" }

// annotate writes annotations, if somebody reads them. The runner takes them from both streams of a step; stdout is the
// command's result.
func annotate(w io.Writer, all ...annotation) {
	if annotating() {
		for _, a := range all {
			fmt.Fprintln(w, a)
		}
	}
}

// workspacePath is a file's name as GitHub knows it: relative to the checkout.
func workspacePath(path string) string {
	if root := os.Getenv("GITHUB_WORKSPACE"); root != "" && path != "" {
		if real, err := filepath.EvalSymlinks(root); err == nil {
			if rel := relativeTo(real, path); rel != path {
				return rel
			}
		}
		return relativeTo(root, path)
	}
	return shortPath(path)
}

// errorAnnotation is what is shown beside the line that a build failed at.
func errorAnnotation(e *buildError) annotation {
	a := annotation{level: "error", title: "build failed", message: strings.Join(append([]string{e.Message}, e.Hints...), "\n")}
	if e.path != "" && e.First > 0 {
		a.file, a.first, a.last = workspacePath(e.path), e.First, e.Last
	}
	return a
}

// ruleName splits a warning's text: the rule, what is wrong, and where, which the annotation has already.
var ruleName = regexp.MustCompile(`^(\w+): (.*?)(?: \(line \d+\))?$`)

func warningAnnotations(dockerfile string, all []client.VertexWarning) (out []annotation) {
	for _, w := range uniqueWarnings(all) {
		a := annotation{level: "warning", title: "Dockerfile", message: string(w.Short)}
		if m := ruleName.FindStringSubmatch(a.message); m != nil {
			a.title, a.message = m[1], m[2]
		}
		if dockerfile != "" {
			a.file = workspacePath(dockerfile)
			a.first, a.last = span(w.Range)
		}
		out = append(out, a)
	}
	return out
}

// lintAnnotations are those of --check.
func lintAnnotations(dockerfile string, r lint.LintResults) (out []annotation) {
	for _, w := range r.Warnings {
		a := annotation{level: "warning", title: w.RuleName, message: w.Detail}
		if dockerfile != "" {
			a.file = workspacePath(dockerfile)
			a.first, a.last = span(w.Location.GetRanges())
		}
		out = append(out, a)
	}
	return out
}
