package main

import (
	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder/export"
	"github.com/optbuild/optbuild/frontend/opt"
)

// This file is about what a build does to the layers of an image.

func layerFlags() []cli.Flag {
	return []cli.Flag{
		profileFlag(),
		optionalFlag{&cli.GenericFlag{Name: "squash", Usage: "which layers become one: off, runs (adjacent RUNs; the default), stage (all of the last stage; also without a value)", Value: &optional{bare: string(export.SquashStage)}}},
		&cli.StringFlag{Name: "strip", Usage: "what package managers left is left out: off, default, all, `RULE`s, -RULEs"},
	}
}

// squashOf and stripOf are the flags' values. With the optimiser off, layers stay as they are unless the flags say otherwise.
func squashOf(c *cli.Context) string {
	if c.IsSet("squash") {
		return c.Generic("squash").(*optional).value
	}
	return unlessOff(c, string(export.SquashRuns))
}

func stripOf(c *cli.Context) string {
	if c.IsSet("strip") {
		return c.String("strip")
	}
	return unlessOff(c, "default")
}

func unlessOff(c *cli.Context, value string) string {
	if opt.Level(c.String("optimize")) == opt.Off {
		return "off"
	}
	return value
}

// tellLayers says in a line what was done to the layers.
func tellLayers(resp map[string]string) {
	report, err := export.ReadReport(resp)
	if err != nil {
		warn(err.Error())
	}
	if line := report.Summary(); line != "" {
		warn(line)
	}
}

// optional is the value of a flag that may stand alone.
type optional struct{ value, bare string }

func (o *optional) Set(v string) error {
	if o.value = v; v == "true" {
		o.value = o.bare
	}
	return nil
}

func (o *optional) String() string { return o.value }

// IsBoolFlag lets package flag take the flag without a value.
func (o *optional) IsBoolFlag() bool { return true }

type optionalFlag struct{ *cli.GenericFlag }

// TakesValue is false: what stands behind the flag is no value of it, unless there is a = between.
func (optionalFlag) TakesValue() bool { return false }
