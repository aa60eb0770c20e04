package main

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/urfave/cli/v2"
)

// This file has the words for commands that were typed wrong.

var (
	noValue  = regexp.MustCompile(`^flag needs an argument: -+(.+)$`)
	badValue = regexp.MustCompile(`^invalid (boolean )?value "(.*)" for (?:flag )?-+([^:]+): (?:parse error|.*invalid syntax)$`)
)

// usageError puts what urfave/cli says about flags into our words.
func usageError(c *cli.Context, err error, _ bool) error {
	help := "optbuild"
	if c.Command != nil && c.Command.HelpName != "" {
		help = c.Command.HelpName
	}
	text := err.Error()
	if name, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		name = strings.TrimPrefix(name, "-")
		err := usagef("unknown flag %s (see `%s --help`)", dash(name), help)
		known := globalFlags()
		if c.Command != nil {
			known = append(known, c.Command.Flags...)
		}
		if near := nearest(name, flagNamesOf(known)); near != "" {
			return withHint(err, "did you mean %s?", dash(near))
		}
		return err
	}
	if m := noValue.FindStringSubmatch(text); m != nil {
		return usagef("%s needs a value (see `%s --help`)", dash(m[1]), help)
	}
	if m := badValue.FindStringSubmatch(text); m != nil {
		if m[1] == "" {
			return usagef("%s=%s: is not what the flag takes (see `%s --help`)", dash(m[3]), m[2], help)
		}
		return usagef("%s=%s: is not true or false", dash(m[3]), m[2])
	}
	return &usageErr{err}
}

func flagNamesOf(flags []cli.Flag) (names []string) {
	for _, f := range flags {
		names = append(names, f.Names()...)
	}
	return names
}

// nearest is the word that was most likely meant, "" if none is like it.
func nearest(word string, words []string) string {
	best, distance := "", min(2, (len(word)+1)/2)+1
	for _, w := range words {
		if len(w) < 2 {
			continue
		}
		if d := levenshtein.Distance(word, w, nil); d < distance {
			best, distance = w, d
		}
	}
	return best
}

// noContainers is said of docker's commands on containers.
const noContainers = "optbuild builds images and runs no containers: `optbuild build --load` gives the image to an engine that does, `optbuild push` to a registry"

// instead tells a docker user what to type for a command that optbuild does not have.
var instead = map[string]string{
	"attach": noContainers, "compose": noContainers, "container": noContainers, "cp": noContainers, "create": noContainers,
	"exec": noContainers, "kill": noContainers, "logs": noContainers, "network": noContainers, "ps": noContainers,
	"restart": noContainers, "rm": noContainers, "run": noContainers, "start": noContainers, "stop": noContainers,
	"volume": noContainers, "commit": noContainers,
	"history":        "`optbuild inspect IMAGE` shows an image's configuration and layers",
	"info":           "`optbuild doctor` examines this machine, `optbuild version` prints versions",
	"system":         "`optbuild df` shows what takes disk space, `optbuild prune` removes cache, `optbuild doctor` examines this machine",
	"image history":  "`optbuild inspect IMAGE` shows an image's configuration and layers",
	"image prune":    "an image that loses its name is not kept; `optbuild rmi` removes named ones, `optbuild prune` the cache",
	"buildx create":  "there is one builder, in the command's own process tree; nothing has to be created",
	"buildx use":     "there is one builder, in the command's own process tree; nothing has to be chosen",
	"buildx ls":      "there is one builder, in the command's own process tree; `optbuild doctor` examines it",
	"buildx inspect": "there is one builder, in the command's own process tree; `optbuild doctor` examines it",
	"buildx rm":      "there is one builder, in the command's own process tree; `optbuild prune --all` empties its cache",
}

// unknownCommand is the error for a command's name, with that of its group in front.
func unknownCommand(name string) error {
	group, last, grouped := strings.Cut(name, " ")
	if !grouped {
		group, last = "", name
	}
	list, help := commands(), "optbuild"
	for _, c := range list {
		if grouped && c.Name == group {
			list, help = c.Subcommands, help+" "+group
			break
		}
	}
	err := usagef("unknown command %q (see `%s --help`)", name, help)
	if text := instead[name]; text != "" {
		return withHint(err, "%s", text)
	}
	var names []string
	for _, c := range list {
		names = append(names, c.Names()...)
	}
	if near := nearest(last, names); near != "" {
		return withHint(err, "did you mean %s?", strings.TrimSpace(fmt.Sprintf("%s %s", help, near)))
	}
	return err
}

// contextArgument is the error of a build without exactly one context.
func contextArgument(args []string) error {
	const what = "build takes one argument, the context: a directory, a URL, or - for standard input"
	if len(args) == 0 {
		return withHint(usagef(what+"; none was given"), "to build the current directory: optbuild build .")
	}
	err := usagef(what+"; got %d: %s", len(args), strings.Join(args, " "))
	return withHint(err, "flags that are given twice have their name twice: -t one -t two")
}
