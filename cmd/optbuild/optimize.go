package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder/request"
	"github.com/optbuild/optbuild/frontend"
	"github.com/optbuild/optbuild/frontend/opt"
)

// optimizeFlags are the compiler's, for every command that compiles a Dockerfile.
func optimizeFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "optimize", Usage: "off, safe (what keeps the image's files), all", EnvVars: []string{frontend.OptimizeEnv}, Value: string(opt.Safe)},
		&cli.StringSliceFlag{Name: "optimize-disable", Usage: "`PASS`es to leave out: " + strings.Join(slices.Concat(opt.Names(), notPasses), ", ")},
		&cli.StringSliceFlag{Name: "share-stage", Usage: "`STAGE` of which the images of all platforms take the same: it runs once, on the platform that builds"},
		&cli.IntFlag{Name: "rewrites", Usage: "make only the first `N` rewrites, to find the one that does harm", Value: -1, DefaultText: "all"},
	}
}

// optimizeOptions reads the flags.
func optimizeOptions(c *cli.Context) (opt.Options, error) {
	o := opt.Options{Level: opt.Level(c.String("optimize")), Disabled: disabledPasses(c), Share: words(c, "share-stage"), Checked: true}
	if c.IsSet("rewrites") {
		switch o.Rewrites = c.Int("rewrites"); {
		case o.Rewrites < 0:
			return o, usagef("--rewrites %d: want a number from 0", o.Rewrites)
		case o.Rewrites == 0:
			o.Rewrites = -1 // none
		}
	}
	if err := o.Check(); err != nil {
		return o, &usageErr{fmt.Errorf("optimize: %w", err)}
	}
	return o, nil
}

// optimizeAttrs hands the flags to the frontend, which runs in the engine.
func optimizeAttrs(c *cli.Context) map[string]string {
	attrs := map[string]string{frontend.AttrOptimize: c.String("optimize"), frontend.AttrProject: project(c.Args().First(), c.String("file")), frontend.AttrChecked: "1"}
	if d := disabledPasses(c); len(d) > 0 {
		attrs[frontend.AttrDisable] = strings.Join(d, ",")
	}
	if s := words(c, "share-stage"); len(s) > 0 {
		attrs[frontend.AttrShare] = strings.Join(s, ",")
	}
	if c.IsSet("rewrites") {
		attrs[frontend.AttrRewrites] = strconv.Itoa(c.Int("rewrites"))
	}
	return attrs
}

// project names what a build is of: its context and Dockerfile. The name is a digest: it stands in provenance statements, and paths are nobody's business.
func project(context, file string) string {
	if abs, err := filepath.Abs(context); err == nil && !strings.Contains(context, "://") {
		context = abs
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q", context, file))
	return hex.EncodeToString(sum[:8])
}

// notPasses are what --optimize-disable switches off besides the compiler's passes.
var notPasses = []string{request.GitModes, request.LazyPull}

// disabledPasses are the passes of --optimize-disable.
func disabledPasses(c *cli.Context) []string {
	return slices.DeleteFunc(disabled(c), func(name string) bool { return slices.Contains(notPasses, name) })
}

// disabled reads --optimize-disable.
func disabled(c *cli.Context) []string { return words(c, "optimize-disable") }

// words reads a flag that may be given several times, with several names each.
func words(c *cli.Context, flag string) (list []string) {
	for _, v := range c.StringSlice(flag) {
		for _, name := range strings.Split(v, ",") {
			if name = strings.TrimSpace(name); name != "" {
				list = append(list, name)
			}
		}
	}
	return list
}
