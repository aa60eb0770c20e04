package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder"
	"github.com/optbuild/optbuild/builder/profile/startup"
	"github.com/optbuild/optbuild/builder/registry"
	"github.com/optbuild/optbuild/builder/store"
)

func profileCommand() *cli.Command {
	return &cli.Command{
		Name:      "profile",
		Usage:     "start an image's program and record which files it reads first, for images that are pulled lazily",
		ArgsUsage: "IMAGE | CONTEXT [-- ARG...]",
		Flags:     slices.Concat(profileFlags(), ownFlags(), buildFlagsOf(stageFlags), optimizeFlags()),
		Action:    runProfile,
	}
}

func profileFlags() []cli.Flag {
	return []cli.Flag{
		&cli.DurationFlag{Name: "for", Usage: "how long the program is watched (default: 10s), or how long its condition may take (default: 2m)"},
		&cli.IntFlag{Name: "until-port", Usage: "until the program listens on a TCP `PORT`", DefaultText: "none"},
		&cli.StringFlag{Name: "until-log", Usage: "until a line of its output matches a `REGEXP`"},
		&cli.BoolFlag{Name: "until-healthy", Usage: "until the image's HEALTHCHECK succeeds"},
		&cli.StringFlag{Name: "entrypoint", Usage: "`PROGRAM` in place of the image's ENTRYPOINT"},
		&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "`FILE` that receives the profile; - for standard output"},
		&cli.StringFlag{Name: "attach", Value: attachAuto, Usage: "put the profile beside the image at its registry: auto (if it is there, and that is allowed), always, off"},
	}
}

// ownFlags are flags of `build` that mean more here, or less.
func ownFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "network", Usage: "network of the program, and of RUN steps: default, host, none (only its own loopback)", Value: "default", Aliases: []string{"net"}},
		&cli.StringSliceFlag{Name: "platform", Usage: "platform of the image, `OS/ARCH`"},
		&cli.BoolFlag{Name: "quiet", Usage: "show neither progress nor what was read", Aliases: []string{"q"}},
	}
}

// stageFlags are those of `build` that say how a stage is built.
var stageFlags = []string{
	"add-host", "allow", "build-arg", "build-context", "cache", "cache-from", "file", "no-cache", "no-cache-filter", "progress", "pull", "resource",
	"secret", "shm-size", "ssh", "tag", "target", "ulimit",
}

func buildFlagsOf(names []string) []cli.Flag {
	return slices.DeleteFunc(buildFlags(), func(f cli.Flag) bool { return !slices.Contains(names, f.Names()[0]) })
}

// Values of --attach.
const (
	attachAuto   = "auto"
	attachAlways = "always"
	attachOff    = "off"
)

// profiling is one run of the command.
type profiling struct {
	replaced startup.Replaced
	options  startup.Options
	healthy  bool // until the health check succeeds
	output   string
	attach   string
	platform ocispecs.Platform

	image      string // name in full; "" for a stage
	stage      *build // nil for an image
	registries registry.Config
}

func runProfile(c *cli.Context) error {
	p, err := newProfiling(c)
	if err != nil {
		return err
	}
	if p.stage != nil {
		defer p.stage.solve.Discard()
	}
	conn, err := connect(c)
	if err != nil {
		return err
	}
	made, err := p.run(c, conn)
	if cerr := conn.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return p.deliver(c, made)
}

func newProfiling(c *cli.Context) (*profiling, error) {
	if c.NArg() == 0 {
		return nil, usagef("profile takes an argument: an image's name, or the context of a build")
	}
	p := &profiling{output: c.String("output"), attach: c.String("attach")}
	if err := p.readFlags(c); err != nil {
		return nil, err
	}
	var err error
	if p.registries, err = registryConfig(c); err != nil {
		return nil, err
	}
	if !isStage(c) {
		for _, name := range []string{"pull", "no-cache"} { // the others say that it is one
			if c.IsSet(name) {
				return nil, usagef("--%s is about building: name the context as a path, such as ./%s", name, c.Args().First())
			}
		}
		p.image = c.Args().First()
		return p, nil
	}
	if _, err := optimizeOptions(c); err != nil {
		return nil, err
	}
	p.stage, err = newBuild(c, true)
	return p, err
}

// isStage tells whether the argument is the context of a build: by its form, or because a flag of builds is there.
func isStage(c *cli.Context) bool {
	for _, name := range []string{"target", "file", "tag", "build-arg", "build-context", "secret", "ssh", "cache", "cache-from"} {
		if c.IsSet(name) {
			return true
		}
	}
	arg := c.Args().First()
	return arg == "-" || arg == "." || arg == ".." || strings.Contains(arg, "://") || strings.HasPrefix(arg, "git@") ||
		strings.HasPrefix(arg, "/") || strings.HasPrefix(arg, "./") || strings.HasPrefix(arg, "../")
}

func (p *profiling) readFlags(c *cli.Context) error {
	var given []string
	for _, name := range []string{"until-port", "until-log", "until-healthy"} {
		if c.IsSet(name) {
			given = append(given, "--"+name)
		}
	}
	if len(given) > 1 {
		return usagef("%s: one condition at a time", strings.Join(given, " and "))
	}
	if args := c.Args().Tail(); len(args) > 0 {
		p.replaced.Cmd = args
	}
	if c.IsSet("entrypoint") {
		e := c.String("entrypoint")
		p.replaced.Entrypoint = &e
	}
	p.healthy = c.Bool("until-healthy")
	if port := c.Int("until-port"); c.IsSet("until-port") && (port < 1 || port > 65535) {
		return usagef("--until-port %d: is no port", port)
	}
	p.options.Conditions.Port = c.Int("until-port")
	if c.IsSet("until-log") {
		var err error
		if p.options.Log, err = regexp.Compile(c.String("until-log")); err != nil {
			return usagef("--until-log: %w", err)
		}
	}
	if p.options.Time = c.Duration("for"); c.IsSet("for") && p.options.Time <= 0 {
		return usagef("--for %s: want a time such as 10s", p.options.Time)
	}
	if !slices.Contains([]string{attachAuto, attachAlways, attachOff}, p.attach) {
		return usagef("--attach %s: is not auto, always or off", p.attach)
	}
	switch c.String("network") {
	case "default", "":
	case "host":
		p.options.Network = pb.NetMode_HOST
	case "none":
		p.options.Network = pb.NetMode_NONE
	default:
		return usagef("--network %s: is not default, host or none", c.String("network"))
	}
	if p.output != "-" {
		if err := checkFolder(p.output); err != nil {
			return usagef("--output %s: %w", p.output, err)
		}
	}
	return p.readPlatform(c)
}

func (p *profiling) readPlatform(c *cli.Context) error {
	p.platform = platforms.Normalize(platforms.DefaultSpec())
	switch values := platformValues(c.StringSlice("platform")); len(values) {
	case 0:
	case 1:
		parsed, err := platforms.Parse(values[0])
		if err != nil {
			return usagef("--platform %s: %w", values[0], err)
		}
		p.platform = platforms.Normalize(parsed)
	default:
		return usagef("--platform %s: one at a time is started", strings.Join(values, ","))
	}
	if slices.Contains([]string{"386", "arm", "mips", "mipsle", "ppc"}, p.platform.Architecture) {
		return usagef("programs of %s can't be watched: old ones of 32 bits can't be told the numbers that files have then", platforms.Format(p.platform))
	}
	return nil
}

// programFailure makes an error of a program that did not start one for people.
func programFailure(err error, shown bool) error {
	var f *startup.Failure
	switch {
	case errors.Is(err, startup.ErrNoCommand):
		return withHint(err, "say what to start: optbuild profile IMAGE -- PROGRAM ARG...")
	case errors.Is(err, startup.ErrRefused):
		return withHint(err, "give the program a network of its own: --network none")
	case errors.As(err, &f) && len(f.Log) > 0 && !shown:
		fmt.Fprintln(os.Stderr, strings.Join(f.Log, "\n"))
	}
	return err
}

// nameOf is the full name of what a user calls an image: for an id, one of the names of the image in the local store. local says that the image is there.
func nameOf(ctx context.Context, conn *builder.Conn, arg string, p ocispecs.Platform) (name string, local bool, err error) {
	i, err := conn.Store(store.Options{}).Inspect(ctx, arg, &p)
	switch named, nerr := store.ParseName(arg); {
	case err != nil && nerr != nil:
		return "", false, &usageErr{nerr}
	case err != nil: // not here, or not all of it
		return named.String(), false, nil
	case nerr == nil && slices.ContainsFunc(slices.Concat(i.RepoTags, i.RepoDigests), func(s string) bool { return s == store.Familiar(named.String()) }):
		return named.String(), true, nil
	case len(i.RepoTags) == 0:
		return "", false, fmt.Errorf("profile %s: an image without a name can't be started: give it one with `optbuild tag`", arg)
	default:
		named, err := store.ParseName(i.RepoTags[0])
		if err != nil {
			return "", false, err
		}
		return named.String(), true, nil
	}
}
