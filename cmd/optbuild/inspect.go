package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder/store"
)

func inspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "show an image's configuration and manifest",
		ArgsUsage: "IMAGE [IMAGE...]",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Usage: "json, or a Go `TEMPLATE` over the fields of the JSON"},
			&cli.BoolFlag{Name: "lazy", Usage: "show which layers can be pulled lazily, and why others can't; also of an image at its registry"},
			platformFlag("show this `PLATFORM` of the image"),
		},
		Action: runInspect,
	}
}

func runInspect(c *cli.Context) error {
	if c.Bool("lazy") {
		return inspectLazy(c)
	}
	if c.NArg() == 0 {
		return usagef("inspect takes at least one argument: an image's name or id")
	}
	p, err := onePlatform(c)
	if err != nil {
		return err
	}
	found := []store.Inspection{}
	missing := withStore(c, nil, func(ctx context.Context, s *store.Store) error {
		var errs []error
		for _, ref := range c.Args().Slice() {
			i, err := s.Inspect(ctx, ref, p)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			found = append(found, i)
		}
		return joinErrors(errs)
	})
	if err := printInspections(c.App.Writer, c.String("format"), found); err != nil {
		return err
	}
	return missing
}

func printInspections(w io.Writer, format string, found []store.Inspection) error {
	switch format {
	case "":
		return printJSON(w, found)
	case "json":
		return printTemplate(w, "{{json .}}", found)
	}
	// Templates see the names of the JSON ({{.Id}}, {{.Config.Env}}), as with docker.
	objects := make([]map[string]any, len(found))
	for i, f := range found {
		b, err := json.Marshal(f)
		if err != nil {
			return err
		}
		dec := json.NewDecoder(bytes.NewReader(b))
		dec.UseNumber()
		if err := dec.Decode(&objects[i]); err != nil {
			return err
		}
	}
	return printTemplate(w, format, objects)
}
