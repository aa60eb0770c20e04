package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder"
)

// version is set at link time.
var version = "dev"

// versions is what `optbuild version --json` prints.
type versions struct {
	Optbuild string `json:"optbuild"`
	BuildKit string `json:"buildkit"`
	Runc     string `json:"runc"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "print the versions of optbuild and of what it is built from",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON"}},
		Action: func(c *cli.Context) error {
			v := builder.Versions()
			return printVersions(c.App.Writer, versions{version, v.BuildKit, v.Runc, v.Go, v.Platform}, c.Bool("json"))
		},
	}
}

func printVersions(w io.Writer, v versions, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(v)
	}
	runc := v.Runc
	if runc == "" {
		runc = "not embedded"
	}
	_, err := fmt.Fprintf(w, "optbuild %s\nbuildkit %s\nrunc     %s\ngo       %s\nplatform %s\n", v.Optbuild, v.BuildKit, runc, v.Go, v.Platform)
	return err
}
