package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder"
	"github.com/optbuild/optbuild/builder/registry"
)

// commands lists the subcommands in the order in which the help shows them.
func commands() []*cli.Command {
	return []*cli.Command{
		buildCommand(),
		explainCommand(),
		whyCommand(),
		fixCommand(),
		checkCommand(),
		imagesCommand(),
		tagCommand(),
		rmiCommand(),
		pullCommand(),
		pushCommand(),
		saveCommand(),
		loadCommand(),
		inspectCommand(),
		convertCommand(),
		indexCommand(),
		analyzeCommand(),
		profileCommand(),
		imageCommand(),
		buildxCommand(),
		loginCommand(),
		logoutCommand(),
		doctorCommand(),
		serveCommand(),
		dfCommand(),
		pruneCommand(),
		cacheCommand(),
		versionCommand(),
	}
}

func newApp() *cli.App {
	app := &cli.App{
		Name:                 "optbuild",
		Usage:                "build container images without a daemon",
		HideVersion:          true,
		EnableBashCompletion: true,
		// docker's flags take values with commas in them.
		DisableSliceFlagSeparator: true,
		Flags:                     globalFlags(),
		Commands:                  commands(),
		Writer:                    os.Stdout,
		ErrWriter:                 os.Stderr,
		ExitErrHandler:            func(*cli.Context, error) {}, // main decides on the exit code
		OnUsageError:              usageError,
		CommandNotFound:           func(_ *cli.Context, name string) { fatal(unknownCommand(name)) },
	}
	setHelp(app)
	for _, c := range app.Commands {
		c.OnUsageError = usageError
		for _, sub := range c.Subcommands {
			sub.OnUsageError = usageError
		}
	}
	return app
}

func globalFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "root", EnvVars: []string{"OPTBUILD_ROOT"}, Usage: "state directory (default: optbuild below XDG_DATA_HOME)"},
		&cli.BoolFlag{Name: "debug", Aliases: []string{"D"}, EnvVars: []string{"OPTBUILD_DEBUG_LOG"}, Usage: "verbose log, in the state directory's engine.log"},
		&cli.StringSliceFlag{Name: "insecure-registry", EnvVars: []string{"OPTBUILD_INSECURE_REGISTRY"}, Usage: "`HOST[:PORT]` whose certificate is not checked, and that may speak plain http"},
		&cli.StringFlag{Name: "max-cache", EnvVars: []string{"OPTBUILD_MAX_CACHE"}, Usage: "most that the cache may take on disk, such as 20GB (default: a fifth of the disk, at least 10GB, at most 100GB)"},
		&cli.StringFlag{Name: "oci-runtime", EnvVars: []string{"OPTBUILD_OCI_RUNTIME"}, Usage: "another OCI runtime than the embedded runc"},
		&cli.BoolFlag{Name: "sync", EnvVars: []string{"OPTBUILD_SYNC"}, Usage: "write the cache to disk before the last command ends: for state directories that move from machine to machine"},
		&cli.BoolFlag{Name: "single-id", EnvVars: []string{"OPTBUILD_SINGLE_ID"}, Usage: "use a user namespace with one id even where there are subordinate ids", Hidden: true},
	}
}

// stateDir is the state directory that the user chose, or the default below XDG_DATA_HOME.
func stateDir(c *cli.Context) (string, error) {
	if dir := c.String("root"); dir != "" {
		return dir, nil
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "optbuild"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find the state directory: %w (name one with --root or OPTBUILD_ROOT)", err)
	}
	return filepath.Join(home, ".local", "share", "optbuild"), nil
}

// registryConfig says how registries are talked to, by flags and by docker's, BuildKit's and containerd's files.
func registryConfig(c *cli.Context) (registry.Config, error) {
	r, err := registry.Local(c.StringSlice("insecure-registry")...)
	if err != nil {
		return r, &usageErr{err}
	}
	return r, nil
}

// connect joins or starts the engine that the global flags name, and shows what the user should know about it.
func connect(c *cli.Context) (*builder.Conn, error) {
	conn, err := connectQuietly(c)
	if err != nil {
		return nil, err
	}
	for _, n := range conn.Notices {
		warn(n)
	}
	return conn, nil
}

func connectQuietly(c *cli.Context) (*builder.Conn, error) {
	root, err := stateDir(c)
	if err != nil {
		return nil, err
	}
	file, err := loadConfig()
	if err != nil {
		return nil, err
	}
	limit, err := maxCache(c, file)
	if err != nil {
		return nil, err
	}
	registries, err := registryConfig(c)
	if err != nil {
		return nil, err
	}
	return builder.Connect(c.Context, builder.Options{
		Root:     root,
		Say:      warn,
		SingleID: c.Bool("single-id"),
		Sync:     c.Bool("sync"),
		Settings: builder.Settings{Runtime: c.String("oci-runtime"), Debug: c.Bool("debug"), Registry: registries, MaxCache: limit},
	})
}
