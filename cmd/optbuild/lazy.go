package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder/store"
)

// inspectLazy is `inspect --lazy`: which layers of an image can be pulled lazily.
func inspectLazy(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef("inspect --lazy takes one argument, an image's name or id (got %d)", c.NArg())
	}
	format := c.String("format")
	if format != "" && format != "json" {
		return usagef("inspect --lazy has --format json only")
	}
	p, err := onePlatform(c)
	if err != nil {
		return err
	}
	var layers []store.LazyLayer
	err = withStore(c, nil, func(ctx context.Context, s *store.Store) (err error) {
		layers, err = s.Lazy(ctx, c.Args().First(), p)
		return err
	})
	if err != nil {
		return err
	}
	if format == "json" {
		return printJSON(c.App.Writer, layers)
	}
	return printLazy(c.App.Writer, layers)
}

func printLazy(w io.Writer, layers []store.LazyLayer) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "LAYER\tSIZE\tLAZY\tWHY")
	lazy := 0
	for _, l := range layers {
		answer, why := "no", l.Why
		if l.Lazy {
			lazy++
			answer, why = "yes", count(l.Files, "file")+" in its table of contents"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", l.Digest.Encoded()[:12], units.HumanSize(float64(l.Bytes)), answer, why)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%d of %s can be pulled lazily\n", lazy, count(len(layers), "layer"))
	return err
}
