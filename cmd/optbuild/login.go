package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder/registry"
)

func loginCommand() *cli.Command {
	return &cli.Command{
		Name:      "login",
		Usage:     "log in to a registry (default: Docker Hub); credentials go where docker keeps its own",
		ArgsUsage: "[REGISTRY]",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "username", Aliases: []string{"u"}, Usage: "user name"},
			&cli.StringFlag{Name: "password", Aliases: []string{"p"}, Usage: "password, or a token in place of it (other users of this machine can see it: better --password-stdin)"},
			&cli.BoolFlag{Name: "password-stdin", Usage: "read the password from standard input"},
		},
		Action: runLogin,
	}
}

func logoutCommand() *cli.Command {
	return &cli.Command{
		Name:      "logout",
		Usage:     "remove a registry's credentials (default: Docker Hub)",
		ArgsUsage: "[REGISTRY]",
		Action:    runLogout,
	}
}

func runLogin(c *cli.Context) error {
	host, registries, err := registryArgument(c)
	if err != nil {
		return err
	}
	user, password, stored, err := askCredentials(c, host, registries)
	if err != nil || stored {
		return loginError(err)
	}
	asked, err := registry.Login(c.Context, registries, host, user, password)
	if err != nil {
		return loginError(err)
	}
	if !asked {
		warn(fmt.Sprintf("%s did not ask for credentials: they are stored, but unproven", host))
	}
	_, err = fmt.Fprintln(c.App.Writer, "Login Succeeded")
	return err
}

func runLogout(c *cli.Context) error {
	host, registries, err := registryArgument(c)
	if err != nil {
		return err
	}
	found, err := registry.Logout(registries, host)
	switch {
	case err != nil:
		return err
	case !found:
		_, err = fmt.Fprintln(c.App.Writer, "Not logged in to "+host)
	default:
		_, err = fmt.Fprintln(c.App.Writer, "Removed login credentials for "+host)
	}
	return err
}

func registryArgument(c *cli.Context) (string, registry.Config, error) {
	if c.NArg() > 1 {
		return "", registry.Config{}, usagef("%s takes one argument, the registry (got %d)", c.Command.Name, c.NArg())
	}
	registries, err := registryConfig(c)
	return registry.Host(c.Args().First()), registries, err
}

// askCredentials takes them from flags, standard input or the terminal. Stored is true when none were given and those that
// are stored still work.
func askCredentials(c *cli.Context, host string, registries registry.Config) (user, password string, stored bool, err error) {
	user, password = c.String("username"), c.String("password")
	switch {
	case c.Bool("password-stdin") && c.IsSet("password"):
		return "", "", false, usagef("--password and --password-stdin exclude each other")
	case c.Bool("password-stdin") && user == "":
		return "", "", false, usagef("--password-stdin needs --username")
	case c.IsSet("password") && password == "":
		return "", "", false, usagef("--password is empty")
	case c.IsSet("username") && user == "":
		return "", "", false, usagef("--username is empty")
	}
	if c.IsSet("password") {
		warn("warning: a password on the command line can be seen by other users of this machine: better --password-stdin")
	}
	if c.Bool("password-stdin") {
		b, err := io.ReadAll(io.LimitReader(os.Stdin, 1<<20))
		if err != nil {
			return "", "", false, fmt.Errorf("read password: %w", err)
		}
		if password = strings.TrimRight(string(b), "\r\n"); password == "" {
			return "", "", false, usagef("the password on standard input is empty")
		}
	}
	if user == "" && password == "" {
		name, err := registry.LoginStored(c.Context, registries, host)
		switch {
		case name != "" && err == nil:
			_, err = fmt.Fprintf(c.App.Writer, "Login Succeeded (as %s, with the credentials that are stored)\n", name)
			return "", "", true, err
		case err != nil && !errors.Is(err, registry.ErrCredentials):
			return "", "", false, err
		}
	}
	for _, q := range []struct {
		value    *string
		question string
		secret   bool
	}{{&user, "Username: ", false}, {&password, "Password: ", true}} {
		if *q.value != "" {
			continue
		}
		answer, ok, err := prompt(c.Context, q.question, q.secret)
		switch {
		case err != nil:
			return "", "", false, err
		case !ok:
			return "", "", false, usagef("there is no terminal to ask on: give --username and --password-stdin")
		case answer == "":
			return "", "", false, usagef("%sempty", strings.ToLower(q.question))
		}
		*q.value = answer
	}
	return user, password, false, nil
}

func loginError(err error) error {
	if errors.Is(err, registry.ErrCredentials) {
		return withHint(err, "check the name and the password; where two-factor login is on, an access token takes the password's place")
	}
	return err
}
