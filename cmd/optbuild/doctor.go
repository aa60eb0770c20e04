package main

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	wlabel "github.com/moby/buildkit/worker/label"
	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder/doctor"
	"github.com/optbuild/optbuild/builder/process"
	"github.com/optbuild/optbuild/builder/registry"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "examine this machine for what builds need, and say what to do about what is missing",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
			&cli.StringSliceFlag{Name: "registry", Usage: "also see whether the registry at `HOST[:PORT]` answers"},
		},
		Action: runDoctor,
	}
}

func runDoctor(c *cli.Context) error {
	if c.NArg() > 0 {
		return usagef("doctor takes no arguments")
	}
	m := doctor.This()
	var err error
	if m.StateDir, err = stateDir(c); err != nil {
		return err
	}
	registries, err := registryConfig(c)
	if err != nil {
		return err
	}
	m.Registries = c.StringSlice("registry")
	m.StartEngine = func(ctx context.Context) doctor.Engine { return tryEngine(ctx, c) }
	hosts := registry.Hosts(registries)
	m.Ping = func(ctx context.Context, name string) (*http.Response, error) { return ping(ctx, hosts, name) }

	var show func(doctor.Result)
	if !c.Bool("json") {
		show = func(r doctor.Result) { printResult(c.App.Writer, r) }
	}
	results := doctor.Run(c.Context, m, show)
	if c.Bool("json") {
		if err := printJSON(c.App.Writer, results); err != nil {
			return err
		}
	}
	for _, r := range results {
		if r.Status == doctor.Fail {
			return fmt.Errorf("builds do not work on this machine as it is: %s: %s", r.Name, r.Found)
		}
	}
	return nil
}

// printResult prints a line, and the remedy's lines indented below it.
func printResult(w io.Writer, r doctor.Result) {
	fmt.Fprintf(w, "%-4s  %-18s  %s\n", r.Status, r.Name, r.Found)
	for _, line := range r.Remedy {
		fmt.Fprintf(w, "      %s\n", line)
	}
}

// tryEngine starts an engine, or joins one, exactly as a build would.
func tryEngine(ctx context.Context, c *cli.Context) doctor.Engine {
	conn, err := connectQuietly(c)
	if err != nil {
		return doctor.Engine{Err: err, Remedy: process.Remedy(err)}
	}
	e := doctor.Engine{Kind: string(conn.Kind), Notices: conn.Notices}
	workers, err := conn.Client.ListWorkers(ctx)
	if err = conn.Explain(err); err == nil && len(workers) > 0 {
		e.Snapshotter = workers[0].Labels[wlabel.Snapshotter]
	}
	if cerr := conn.Close(); err == nil {
		err = cerr
	}
	e.Err = err
	return e
}

// ping asks the first host that serves a registry's name for the root of its API.
func ping(ctx context.Context, hosts docker.RegistryHosts, name string) (*http.Response, error) {
	list, err := hosts(name)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no host serves %s", name)
	}
	h := list[0]
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.Scheme+"://"+h.Host+h.Path+"/", nil)
	if err != nil {
		return nil, err
	}
	client := h.Client
	if client == nil {
		client = http.DefaultClient
	}
	return client.Do(req)
}
