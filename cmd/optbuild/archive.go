package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/containerd/console"
	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder/store"
)

func saveCommand() *cli.Command {
	return &cli.Command{
		Name:      "save",
		Usage:     "write images to an archive, as docker save does",
		ArgsUsage: "IMAGE [IMAGE...]",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `FILE` instead of standard output"},
			platformFlag("save one `PLATFORM` of the images; default: all that are here"),
		},
		Action: runSave,
	}
}

func runSave(c *cli.Context) error {
	if c.NArg() == 0 {
		return usagef("save takes at least one argument: an image's name or id")
	}
	p, err := onePlatform(c)
	if err != nil {
		return err
	}
	out := c.String("output")
	if out == "" && stdoutIsTerminal() {
		return usagef("save writes an archive and standard output is a terminal: give -o FILE")
	}
	err = withStore(c, nil, func(ctx context.Context, s *store.Store) error {
		save := func(w io.Writer) error { return s.Save(ctx, w, c.Args().Slice(), store.SaveOptions{Platform: p}) }
		if out == "" {
			return save(os.Stdout)
		}
		return replaceFile(out, save)
	})
	if err != nil && full(err.Error(), nil) { // the archive's disk, or the engine's
		if root, rootErr := stateDir(c); rootErr == nil {
			message, hint := explainFull(err.Error(), root)
			return withHint(fmt.Errorf("%s: %w", message, err), "%s", hint)
		}
	}
	return err
}

func loadCommand() *cli.Command {
	return &cli.Command{
		Name:  "load",
		Usage: "read images from an archive of docker save or an OCI layout",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "input", Aliases: []string{"i"}, Usage: "read `FILE` instead of standard input"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "show no progress (there is none)"},
		},
		Action: runLoad,
	}
}

func runLoad(c *cli.Context) error {
	if c.NArg() > 0 {
		return usagef("load takes no arguments; give the archive with -i FILE or on standard input")
	}
	in := os.Stdin
	if name := c.String("input"); name != "" && name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	} else if _, err := console.ConsoleFromFile(in); err == nil {
		return usagef("load reads an archive and standard input is a terminal: give -i FILE")
	}
	return withStore(c, nil, func(ctx context.Context, s *store.Store) error {
		loaded, err := s.Load(ctx, interruptible(ctx, in))
		if err != nil {
			return err
		}
		for _, l := range loaded {
			if l.Name == "" {
				fmt.Fprintln(c.App.Writer, "Loaded image ID:", l.ID)
			} else {
				fmt.Fprintln(c.App.Writer, "Loaded image:", store.Familiar(l.Name))
			}
		}
		return nil
	})
}
