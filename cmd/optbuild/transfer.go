package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder/store"
)

func pullCommand() *cli.Command {
	return &cli.Command{
		Name:      "pull",
		Usage:     "copy an image from a registry to the local store",
		ArgsUsage: "NAME[:TAG|@DIGEST]",
		Flags: append(transferFlags(),
			&cli.StringSliceFlag{Name: "platform", Usage: "`PLATFORM` to pull (several: repeat it or use commas), or all; default: this machine's"}),
		Action: runPull,
	}
}

func runPull(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef("pull takes one argument, an image's name (got %d)", c.NArg())
	}
	o, err := pullOptions(c.StringSlice("platform"))
	if err != nil {
		return err
	}
	if _, err := store.ParseName(c.Args().First()); err != nil {
		return &usageErr{err}
	}
	var pulled store.Pulled
	err = withTransfers(c, "Pulling", func(ctx context.Context, s *store.Store) (err error) {
		pulled, err = s.Pull(ctx, c.Args().First(), o)
		return err
	})
	if err != nil {
		return err
	}
	if pulled.Unlisted != nil {
		warn(fmt.Sprintf("%s: what is beside the image at the registry is not pulled, since it can't be listed: %v", store.Familiar(pulled.Name), pulled.Unlisted))
	}
	if !c.Bool("quiet") {
		status := "Downloaded newer image for"
		if pulled.UpToDate {
			status = "Image is up to date for"
		}
		fmt.Fprintf(os.Stderr, "Digest: %s\nStatus: %s %s\n", pulled.Digest, status, store.Familiar(pulled.Name))
	}
	_, err = fmt.Fprintln(c.App.Writer, pulled.Name)
	return err
}

func pullOptions(values []string) (o store.PullOptions, err error) {
	for _, v := range platformValues(values) {
		if v == "all" {
			o.AllPlatforms = true
			continue
		}
		p, err := platforms.Parse(v)
		if err != nil {
			return o, usagef("--platform %s: %w", v, err)
		}
		o.Platforms = append(o.Platforms, p)
	}
	if o.AllPlatforms && len(o.Platforms) > 0 {
		return o, usagef("--platform: all stands alone")
	}
	return o, nil
}

// platformValues splits the values of --platform; without any, those of docker's environment variable.
func platformValues(values []string) (out []string) {
	if len(values) == 0 {
		values = []string{os.Getenv("DOCKER_DEFAULT_PLATFORM")}
	}
	for _, list := range values {
		for v := range strings.SplitSeq(list, ",") {
			if v = strings.TrimSpace(v); v != "" {
				out = append(out, v)
			}
		}
	}
	return out
}

// onePlatform reads the --platform of commands that take one; nil if it was not given.
func onePlatform(c *cli.Context) (*ocispecs.Platform, error) {
	v := c.String("platform")
	if v == "" {
		return nil, nil
	}
	p, err := platforms.Parse(v)
	if err != nil {
		return nil, usagef("--platform %s: %w", v, err)
	}
	return &p, nil
}

func platformFlag(usage string) cli.Flag { return &cli.StringFlag{Name: "platform", Usage: usage} }

func pushCommand() *cli.Command {
	return &cli.Command{
		Name:      "push",
		Usage:     "copy an image from the local store to a registry",
		ArgsUsage: "NAME[:TAG]",
		Flags: append(transferFlags(),
			&cli.BoolFlag{Name: "all-tags", Aliases: []string{"a"}, Usage: "push all tags of a repository"},
			platformFlag("push one `PLATFORM` of the image, without its index")),
		Action: runPush,
	}
}

func runPush(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef("push takes one argument, an image's name (got %d)", c.NArg())
	}
	p, err := onePlatform(c)
	if err != nil {
		return err
	}
	names := []string{c.Args().First()}
	if _, err := store.ParseName(names[0]); err != nil {
		return &usageErr{err}
	}
	var pushed []store.Pushed
	err = withTransfers(c, "Pushing", func(ctx context.Context, s *store.Store) (err error) {
		if c.Bool("all-tags") {
			if names, err = s.Tags(ctx, names[0]); err != nil {
				return err
			}
		}
		for _, name := range names {
			one, err := s.Push(ctx, name, store.PushOptions{Platform: p})
			if err != nil {
				return err
			}
			pushed = append(pushed, one)
		}
		return nil
	})
	for _, one := range pushed { // also those before an error: they are there
		if one.Part != "" {
			warn(fmt.Sprintf("%s: pushed %s only, of which the content is here", store.Familiar(one.Name), one.Part))
		}
		if c.Bool("quiet") {
			fmt.Fprintln(c.App.Writer, one.Name)
			continue
		}
		fmt.Fprintf(c.App.Writer, "%s: digest: %s size: %d\n", one.Tag, one.Target.Digest, one.Target.Size)
	}
	return err
}
