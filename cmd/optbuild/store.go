package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder/registry"
	"github.com/optbuild/optbuild/builder/store"
)

// imageCommand groups the commands on the local image store under docker's second names for them.
func imageCommand() *cli.Command {
	return &cli.Command{
		Name:  "image",
		Usage: "manage images (image ls is images, image rm is rmi, ...)",
		Subcommands: []*cli.Command{
			under(buildCommand(), "build"),
			under(imagesCommand(), "ls", "list"),
			under(inspectCommand(), "inspect"),
			under(loadCommand(), "load"),
			under(pullCommand(), "pull"),
			under(pushCommand(), "push"),
			under(rmiCommand(), "rm", "remove"),
			under(saveCommand(), "save"),
			under(tagCommand(), "tag"),
		},
		Action: groupAction,
	}
}

// buildxCommand is for scripts that say `docker buildx build`.
func buildxCommand() *cli.Command {
	return &cli.Command{
		Name:    "buildx",
		Aliases: []string{"builder"},
		Usage:   "docker's other names: buildx build is build, buildx prune is prune, ...",
		Subcommands: []*cli.Command{
			under(buildCommand(), "build", "b"),
			under(dfCommand(), "du"),
			under(indexCommand(), "imagetools"),
			under(pruneCommand(), "prune"),
			under(versionCommand(), "version"),
		},
		Action: groupAction,
	}
}

// under gives a command another name.
func under(c *cli.Command, name string, aliases ...string) *cli.Command {
	c.Name, c.Aliases = name, aliases
	return c
}

// groupAction is what a group of commands does when none of its commands was named.
func groupAction(c *cli.Context) error {
	if c.NArg() > 0 {
		return unknownCommand(c.Command.Name + " " + c.Args().First())
	}
	return cli.ShowSubcommandHelp(c)
}

// withStore runs f on the local image store. It ends early when the engine is lost.
func withStore(c *cli.Context, status func(*client.SolveStatus), f func(context.Context, *store.Store) error) error {
	registries, err := registryConfig(c)
	if err != nil {
		return err
	}
	conn, err := connect(c)
	if err != nil {
		return err
	}
	ctx, cancel := conn.Watch(c.Context)
	defer cancel()
	err = conn.Explain(f(ctx, conn.Store(store.Options{Hosts: registry.ClientHosts(registries), Status: status})))
	if cerr := conn.Close(); err == nil {
		err = cerr
	}
	return storeHint(err)
}

// withTransfers is withStore for commands that show their progress on stderr.
func withTransfers(c *cli.Context, phase string, f func(context.Context, *store.Store) error) error {
	mode, err := displayMode(c)
	if err != nil {
		return err
	}
	show, err := newDisplay(mode, nil, progressui.WithPhase(phase))
	if err != nil {
		return err
	}
	in := show.statuses()
	err = withStore(c, func(s *client.SolveStatus) { in <- s }, f)
	close(in)
	show.wait()
	return err
}

func transferFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "show no progress"},
		&cli.StringFlag{Name: "progress", Value: "auto", EnvVars: []string{"BUILDKIT_PROGRESS"}, Usage: "auto, tty, plain, rawjson, quiet or none"},
	}
}

func storeHint(err error) error {
	switch {
	case errors.Is(err, store.ErrNoImage):
		return withHint(err, "`optbuild images` lists the images of this state directory; `optbuild build -t NAME` or `optbuild pull NAME` adds one")
	case errors.Is(err, store.ErrBadArchive):
		return withHint(err, "load takes what `docker save` writes, or an OCI layout as a tar, plain or compressed; is the file whole?")
	case errors.Is(err, store.ErrInUse):
		return withHint(err, "-f removes all its names; or remove one of its names")
	case errors.Is(err, store.ErrIncomplete):
		return withHint(err, "choose a platform with --platform, or pull all of them: `optbuild pull --platform all NAME`")
	}
	return err
}

// joinErrors is errors.Join with one line for all.
func joinErrors(errs []error) error {
	if len(errs) < 2 {
		return errors.Join(errs...)
	}
	return fmt.Errorf("%w; %w", errs[0], joinErrors(errs[1:]))
}
