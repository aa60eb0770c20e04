package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containerd/console"
	"github.com/distribution/reference"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder/analyze"
	"github.com/optbuild/optbuild/builder/store"
)

func analyzeCommand() *cli.Command {
	return &cli.Command{
		Name:      "analyze",
		Usage:     "show where the bytes of an image are",
		ArgsUsage: "IMAGE | PATH",
		Flags: append(limitFlags(),
			&cli.BoolFlag{Name: "json", Usage: "one JSON object"},
			&cli.BoolFlag{Name: "html", Usage: "one page"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "`FILE` to write to instead of standard output"},
			&cli.IntFlag{Name: "top", Usage: "list the `N` worst files of each kind", Value: 10},
			platformFlag("analyze this `PLATFORM` of the image")),
		Action: runAnalyze,
	}
}

// limitFlags are those of `analyze` and `build`.
func limitFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "max-size", Usage: "fail if the image's layers, as they are stored, have more than `SIZE`, such as 500MB"},
		&cli.StringFlag{Name: "max-waste", Usage: "fail if more than a `SHARE` such as 5%, or a size, of the layers' files is replaced or deleted by later layers"},
	}
}

func limits(c *cli.Context) (analyze.Limits, error) {
	l, err := analyze.ParseLimits(c.String("max-size"), c.String("max-waste"))
	if err != nil {
		return l, &usageErr{err}
	}
	return l, nil
}

func runAnalyze(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef("analyze takes one argument: an image's name or id, or ./PATH of an image layout or archive (got %d)", c.NArg())
	}
	if c.Bool("json") && c.Bool("html") {
		return usagef("--json and --html exclude each other")
	}
	l, err := limits(c)
	if err != nil {
		return err
	}
	p, err := onePlatform(c)
	if err != nil {
		return err
	}
	o := analyze.Options{Most: c.Int("top")}
	if o.Most <= 0 {
		return usagef("--top %d: want a number from 1", o.Most)
	}
	var report *analyze.Report
	if path, name, ok := layoutPath(c.Args().First()); ok {
		report, err = analyzeLayout(c.Context, path, name, p, o)
	} else if _, err := store.ParseName(path); err != nil {
		return &usageErr{err}
	} else {
		err = withStore(c, nil, func(ctx context.Context, s *store.Store) (err error) {
			report, err = analyzeStored(ctx, s, path, p, o)
			return err
		})
		if err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	if err := writeAnalysis(c, report); err != nil {
		return err
	}
	return l.Check(report)
}

// layoutPath tells whether an argument means files: oci-layout://PATH[:NAME], or what begins as only a path does. Otherwise path is the argument.
func layoutPath(arg string) (path, name string, ok bool) {
	if path, ok = strings.CutPrefix(arg, "oci-layout://"); ok {
		if i := strings.LastIndexByte(path, ':'); i >= 0 && reference.TagRegexp.FindString(path[i+1:]) == path[i+1:] {
			return path[:i], path[i+1:], true
		}
		return path, "", true
	}
	for _, prefix := range []string{"/", "./", "../"} {
		if strings.HasPrefix(arg, prefix) {
			return arg, "", true
		}
	}
	return arg, "", false
}

func analyzeLayout(ctx context.Context, path, name string, p *ocispecs.Platform, o analyze.Options) (*analyze.Report, error) {
	l, err := analyze.OpenLayout(path)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	target, err := l.Find(name)
	if err != nil {
		return nil, err
	}
	im, err := analyze.Open(ctx, path, l, target, p)
	if err != nil {
		return nil, err
	}
	return analyze.Analyze(ctx, im, o)
}

// analyzeStored takes an image from the store or, if it has none of that name, from its registry.
func analyzeStored(ctx context.Context, s *store.Store, ref string, p *ocispecs.Platform, o analyze.Options) (_ *analyze.Report, err error) {
	opened, err := s.Open(ctx, ref, p)
	if errors.Is(err, store.ErrNoImage) {
		local := err
		if opened, err = s.OpenRemote(ctx, ref); err != nil {
			return nil, fmt.Errorf("%w, and not at its registry: %w", local, err)
		}
		warn(opened.Name + " is not in the local store: reading it from its registry")
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := opened.Close(); err == nil {
			err = cerr
		}
	}()
	im, err := analyze.Open(ctx, opened.Name, opened.Blobs, opened.Target, p)
	if err != nil {
		return nil, err
	}
	return analyze.Analyze(ctx, im, o)
}

func writeAnalysis(c *cli.Context, r *analyze.Report) error {
	path := c.String("output")
	write := func(w io.Writer) error {
		switch {
		case c.Bool("json"):
			return printJSON(w, r)
		case c.Bool("html"):
			return analyze.HTML(w, r)
		}
		width := 0
		if path == "" {
			width = terminalWidth()
		}
		return analyze.Text(w, r, width)
	}
	if path == "" {
		return write(c.App.Writer)
	}
	if err := replaceFile(path, write); err != nil {
		return fmt.Errorf("write analysis: %w", err)
	}
	return nil
}

// terminalWidth is that of standard output, 0 if it is no terminal.
func terminalWidth() int {
	con, err := console.ConsoleFromFile(os.Stdout)
	if err != nil {
		return 0
	}
	size, err := con.Size()
	if err != nil {
		return 0
	}
	return int(size.Width)
}
