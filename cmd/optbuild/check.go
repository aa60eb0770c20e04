package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/frontend/lint"
	"github.com/optbuild/optbuild/frontend/world"
)

func checkCommand() *cli.Command {
	return &cli.Command{
		Name:      "check",
		Usage:     "find what is wrong with a Dockerfile though it builds: BuildKit's rules and more",
		ArgsUsage: "[PATH]",
		Flags: append(sourceFlags(),
			&cli.StringFlag{Name: "format", Usage: "text, json, sarif, github", Value: "text"},
			&cli.StringFlag{Name: "severity", Usage: "show findings of this severity or worse, and exit with 1 if there are any: error, warning, info", Value: lint.Warning.String()},
		),
		Action: runCheck,
	}
}

func runCheck(c *cli.Context) error {
	var severity lint.Severity
	if err := severity.UnmarshalText([]byte(c.String("severity"))); err != nil {
		return usagef("--severity: %w", err)
	}
	format := c.String("format")
	switch format {
	case "text", "json", "sarif", "github":
	default:
		return usagef("--format %s: is not text, json, sarif or github", format)
	}
	off, err := readOffline(c, lint.Wants, nil)
	if err != nil {
		return err
	}
	if off.aside != "" {
		return withHint(fmt.Errorf("%s is not checked: %s", off.source.Name, off.aside), "optbuild does not know its language")
	}
	_, ignore, err := off.source.Ignore()
	if err != nil {
		return err
	}
	found, err := lint.Run(c.Context, off.plan, off.facts, string(ignore))
	if err != nil {
		return err
	}
	found = lint.AtLeast(found, severity)
	switch format {
	case "text":
		err = lint.Text(c.App.Writer, found, off.source.Data)
		annotate(os.Stderr, findingAnnotations(off.source, found)...)
	case "json":
		err = lint.JSON(c.App.Writer, found)
	case "sarif":
		for i := range found {
			found[i].File = checkedFile(off.source)
		}
		err = lint.SARIF(c.App.Writer, found, version, workspacePath(absolute(off.source.Context)))
	case "github":
		for _, a := range findingAnnotations(off.source, found) {
			if _, err = fmt.Fprintln(c.App.Writer, a); err != nil {
				break
			}
		}
	}
	if err == nil && len(found) > 0 {
		err = errFindings
	}
	return err
}

// checkedFile is the Dockerfile as those know it who read findings elsewhere.
func checkedFile(s *world.Source) string {
	if s.Path == "" {
		return s.Name
	}
	return workspacePath(absolute(s.Path))
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// annotationLevels are GitHub's names of severities.
var annotationLevels = map[lint.Severity]string{lint.Error: "error", lint.Warning: "warning", lint.Info: "notice"}

func findingAnnotations(s *world.Source, list []lint.Finding) (out []annotation) {
	for _, f := range list {
		a := annotation{level: annotationLevels[f.Severity], title: f.Rule, file: checkedFile(s), message: f.Message}
		a.first, a.last, a.from, a.to = f.Range.Line, f.Range.EndLine, f.Range.Column, f.Range.EndColumn
		if f.Remedy != "" {
			a.message += "\n" + f.Remedy
		}
		out = append(out, a)
	}
	return out
}
