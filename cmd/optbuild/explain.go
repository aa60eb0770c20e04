package main

import (
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/frontend/explain"
	"github.com/optbuild/optbuild/frontend/opt"
)

func explainCommand() *cli.Command {
	flags := append(sourceFlags(), optimizeFlags()...)
	return &cli.Command{
		Name:      "explain",
		Usage:     "show what a build would change in a Dockerfile, and why not more",
		ArgsUsage: "[PATH]",
		Flags: append(flags,
			&cli.BoolFlag{Name: "steps", Usage: "a diff of the Dockerfile for each pass"},
			&cli.BoolFlag{Name: "html", Usage: "one page: the Dockerfile after each pass, side by side"},
			&cli.BoolFlag{Name: "json", Usage: "a line of JSON for each remark"},
			&cli.BoolFlag{Name: "llb", Usage: "the LLB, as JSON lines in the form of buildctl debug dump-llb"},
			&cli.BoolFlag{Name: "dot", Usage: "the LLB as a graph for Graphviz"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "`FILE` to write to instead of standard output"},
		),
		Action: runExplain,
	}
}

// forms are the flags that say how an explanation is written; each knows whether its text tells of facts that were missing.
var forms = []struct {
	name       string
	tellsFacts bool
}{{"steps", false}, {"html", true}, {"json", true}, {"llb", false}, {"dot", false}}

func runExplain(c *cli.Context) error {
	form, tellsFacts := "", true
	for _, f := range forms {
		if !c.Bool(f.name) {
			continue
		}
		if form != "" {
			return usagef("--%s and --%s exclude each other", form, f.name)
		}
		form, tellsFacts = f.name, f.tellsFacts
	}
	o, err := optimizeOptions(c)
	if err != nil {
		return err
	}
	var last learned
	if state, err := stateDir(c); err == nil {
		last = readLearned(state)
	}
	off, err := compileOffline(c, o, last.images())
	if err != nil {
		return err
	}
	if err := opt.MissingShared(off.plan, o); err != nil {
		return err
	}
	a := explain.New(off.plan, off.facts, o, off.result)
	a.Aside = off.aside
	a.SetMeasured(last.find(a, off.source.Path))
	if o.Level != opt.Off && off.aside == "" { // as a build has --squash and --strip then
		a.Remarks = append(a.Remarks, explain.Layers(off.result.Plan, off.facts)...)
	}
	a.Layers = last.layers(off.source.Path, c.String("target"))
	write := func(w io.Writer) error {
		switch form {
		case "steps":
			return explain.Steps(w, a)
		case "html":
			return explain.HTML(w, a)
		case "json":
			return explain.JSON(w, a)
		case "llb", "dot":
			ops, err := explain.Lower(c.Context, a.Last().Text(), off.facts)
			if err != nil {
				return dockerfileError(off.source, err)
			}
			if form == "dot" {
				return explain.Dot(w, ops)
			}
			return explain.LLB(w, ops)
		}
		return explain.Gutter(w, a, c.String("output") == "" && os.Getenv("NO_COLOR") == "" && stdoutIsTerminal())
	}
	if path := c.String("output"); path != "" {
		err = replaceFile(path, write)
	} else {
		err = write(c.App.Writer)
	}
	if line := a.FactsLine(); err == nil && line != "" && !tellsFacts {
		warn(strings.TrimSpace(explain.Visible(line)))
	}
	return err
}
