package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/frontend"
	"github.com/optbuild/optbuild/frontend/diagnose"
	"github.com/optbuild/optbuild/frontend/opt"
	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/world"
)

// This file is for commands that compile a Dockerfile without an engine.

// sourceFlags say which Dockerfile is compiled, and for what, as they do for build.
func sourceFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "build-arg", Usage: "build argument, `NAME=VALUE`, or NAME from the environment"},
		&cli.StringSliceFlag{Name: "build-context", Usage: "named context, `NAME=WHERE`; only the name counts"},
		&cli.StringFlag{Name: "file", Aliases: []string{"f"}, Usage: "`DOCKERFILE`: a path, or - for standard input (default: Dockerfile in the context)"},
		&cli.StringSliceFlag{Name: "platform", Usage: "target platforms, `OS/ARCH`,…"},
		&cli.StringFlag{Name: "target", Usage: "stage to build"},
	}
}

// offline is a Dockerfile, compiled with what this machine alone can know.
type offline struct {
	source *world.Source
	plan   *plan.Plan
	world  world.Options
	facts  *plan.Facts
	result opt.Result
	aside  string // why a build's optimiser would stand aside, "" if it would not
}

// wants lists files of the context that are to be read.
type wants func(*plan.Plan, *plan.Facts) []string

func passWants(o opt.Options) wants {
	return func(p *plan.Plan, f *plan.Facts) []string { return opt.Wants(p, f, o) }
}

// compileOffline compiles the Dockerfile that the flags and the argument name. images is what is known of base images.
func compileOffline(c *cli.Context, o opt.Options, images map[string]plan.Image) (*offline, error) {
	off, err := readOffline(c, passWants(o), images)
	if err != nil {
		return nil, err
	}
	if off.aside != "" {
		o.Level = opt.Off
	}
	off.result = opt.Run(off.plan, off.facts, o)
	return off, nil
}

// readOffline is compileOffline without the passes.
func readOffline(c *cli.Context, read wants, images map[string]plan.Image) (*offline, error) {
	dir := "."
	switch c.NArg() {
	case 0:
	case 1:
		dir = c.Args().First()
	default:
		return nil, usagef("%s takes one directory: %s", c.Command.Name, strings.Join(c.Args().Slice(), " "))
	}
	targets, err := targetPlatforms(c.StringSlice("platform"))
	if err != nil {
		return nil, err
	}
	w := world.Options{BuildArgs: map[string]string{}, Target: c.String("target"), Targets: targets, Images: images}
	for _, arg := range c.StringSlice("build-arg") {
		name, value, given := strings.Cut(arg, "=")
		if name == "" {
			return nil, usagef("--build-arg %s: is not NAME=VALUE", arg)
		}
		if !given {
			if value, given = os.LookupEnv(name); !given {
				continue
			}
		}
		w.BuildArgs[name] = value
	}
	for _, named := range c.StringSlice("build-context") {
		name, _, ok := strings.Cut(named, "=")
		if !ok || name == "" {
			return nil, usagef("--build-context %s: is not NAME=WHERE", named)
		}
		w.Named = append(w.Named, name)
	}
	w.Wants = read
	off := &offline{world: w}
	if off.source, err = world.Open(dir, c.String("file"), interruptible(c.Context, os.Stdin)); err != nil {
		return nil, sourceError(err)
	}
	off.source.Name = shortPath(off.source.Name)
	off.aside = frontend.Aside(w.BuildArgs, off.source.Data)
	if off.plan, err = plan.Parse(off.source.Name, off.source.Data); err != nil {
		if off.aside != "" {
			return nil, withHint(dockerfileError(off.source, err), "%s, and optbuild cannot", off.aside)
		}
		return nil, dockerfileError(off.source, err)
	}
	if off.facts, err = world.Local(off.plan, off.source, w); err != nil {
		return nil, err
	}
	if off.plan.Target(off.facts) == nil {
		return nil, usagef("--target %s: there is no such stage in %s", w.Target, off.source.Name)
	}
	return off, nil
}

// targetPlatforms reads --platform.
func targetPlatforms(flags []string) (list []ocispecs.Platform, err error) {
	for _, flag := range flags {
		for name := range strings.SplitSeq(flag, ",") {
			if name = strings.TrimSpace(name); name == "" {
				continue
			}
			p, err := platforms.Parse(name)
			if err != nil {
				return nil, usagef("--platform %s: is not os/arch[/variant]: %w", name, err)
			}
			list = append(list, platforms.Normalize(p))
		}
	}
	return list, nil
}

// sourceError adds a hint to an error of finding a Dockerfile.
func sourceError(err error) error {
	switch {
	case errors.Is(err, world.ErrNoDockerfile):
		return withHint(err, "name it with -f, or give the directory that has one as the argument")
	case errors.Is(err, world.ErrContext), errors.Is(err, fs.ErrNotExist):
		return withHint(err, "give a directory; a Dockerfile elsewhere is named with -f")
	}
	return err
}

// dockerfileError is an error of BuildKit's parser, told as a build tells it.
func dockerfileError(s *world.Source, err error) error {
	f := diagnose.Failure{Text: err.Error(), File: s.Name, Source: s.Data}
	var at *parser.LocationError
	if errors.As(err, &at) {
		for _, ranges := range at.Locations {
			for _, r := range ranges {
				if f.First == 0 {
					f.First = r.Start.Line
				}
				f.Last = max(f.Last, r.End.Line)
			}
		}
	}
	path := s.Path
	if abs, aerr := filepath.Abs(path); path != "" && aerr == nil {
		path = abs
	}
	return &buildError{Diagnosis: diagnose.Explain(f, diagnose.Context{Files: os.DirFS(s.Context)}), cause: fmt.Errorf("parse %s: %w", s.Name, err), path: path}
}
