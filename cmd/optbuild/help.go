package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

// Help is laid out as docker's: one column of flags, one of text, lines of 80 columns.
const (
	helpWidth   = 80
	helpColumn  = 30 // where the text begins
	placeholder = "VALUE"
)

// setHelp gives the app and its commands their help. The texts are made here and not by templates of urfave/cli, which
// spell each name of a flag with its placeholder and put it all on one line; and they are made when they are asked for, as
// making all of them would take a tenth of a command's start. So what urfave/cli takes for a template is a command's path.
func setHelp(app *cli.App) {
	cli.HelpPrinter = func(w io.Writer, path string, _ any) { _, _ = io.WriteString(w, helpOf(path)) }
	app.CustomAppHelpTemplate = app.Name
	for _, c := range app.Commands {
		setHelpPath(c, app.Name)
	}
}

func setHelpPath(c *cli.Command, parent string) {
	c.CustomHelpTemplate = parent + " " + c.Name
	for _, sub := range c.Subcommands {
		setHelpPath(sub, c.CustomHelpTemplate)
	}
}

// helpOf is the help of the command with a path such as "optbuild image ls", or, if there is none, of the app.
func helpOf(path string) string {
	app := newApp() // the one that runs has commands and flags of urfave/cli's as well
	list := app.Commands
	var c *cli.Command
	for _, name := range strings.Fields(path)[1:] {
		i := slices.IndexFunc(list, func(c *cli.Command) bool { return c.Name == name })
		if i < 0 {
			return appHelp(app)
		}
		c, list = list[i], list[i].Subcommands
	}
	if c == nil {
		return appHelp(app)
	}
	return commandHelp(c, path)
}

func appHelp(app *cli.App) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage:  %s [OPTIONS] COMMAND\n\n%s\n\nCommands:\n", app.Name, app.Usage)
	writeCommands(&b, app.Commands)
	b.WriteString("\nOptions of all commands:\n")
	writeFlags(&b, app.Flags)
	fmt.Fprintf(&b, "\n`%s COMMAND --help` tells more of a command.\n", app.Name)
	return b.String()
}

func commandHelp(c *cli.Command, path string) string {
	usage := path
	switch {
	case len(c.Subcommands) > 0:
		usage += " COMMAND"
	case c.ArgsUsage != "":
		usage += " [OPTIONS] " + c.ArgsUsage
	default:
		usage += " [OPTIONS]"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Usage:  %s\n\n", usage)
	writeColumns(&b, "", 0, c.Usage)
	if len(c.Aliases) > 0 {
		fmt.Fprintf(&b, "\nAliases: %s\n", strings.Join(c.Aliases, ", "))
	}
	if len(c.Subcommands) > 0 {
		b.WriteString("\nCommands:\n")
		writeCommands(&b, c.Subcommands)
	}
	if flags := c.VisibleFlags(); len(flags) > 0 {
		b.WriteString("\nOptions:\n")
		writeFlags(&b, flags)
	}
	fmt.Fprintf(&b, "\nOptions of all commands, such as --root: `%s --help`\n", strings.Fields(path)[0])
	return b.String()
}

func writeCommands(b *strings.Builder, list []*cli.Command) {
	for _, c := range list {
		if !c.Hidden {
			writeColumns(b, "  "+strings.Join(c.Names(), ", "), 14, c.Usage)
		}
	}
}

func writeFlags(b *strings.Builder, flags []cli.Flag) {
	for _, f := range flags {
		d, ok := f.(cli.DocGenerationFlag)
		if v, is := f.(cli.VisibleFlag); !ok || is && !v.IsVisible() {
			continue
		}
		value, text := unquote(d.GetUsage())
		head := flagNames(f.Names())
		if d.TakesValue() {
			head += " " + value
		}
		if s, ok := f.(cli.DocGenerationSliceFlag); ok && s.IsSliceFlag() {
			text += " (repeatable)"
		}
		if v := d.GetDefaultText(); d.TakesValue() && v != "" && v != `""` && !strings.Contains(text, "default") {
			text += " (default: " + strings.Trim(v, `"`) + ")"
		}
		if env := d.GetEnvVars(); len(env) > 0 {
			text += " [$" + strings.Join(env, ", $") + "]"
		}
		writeColumns(b, head, helpColumn, text)
	}
}

// flagNames puts the letter first, and long names below each other whether or not there is one.
func flagNames(names []string) string {
	letter, long := "    ", []string(nil)
	for _, n := range names {
		if len(n) == 1 {
			letter = "-" + n + ", "
		} else {
			long = append(long, "--"+n)
		}
	}
	return "  " + letter + strings.Join(long, ", ")
}

var quoted = regexp.MustCompile("`([^`]*)`")

// unquote returns the placeholder for a flag's value, which usage has between backquotes, and usage without them.
func unquote(usage string) (value, text string) {
	value = placeholder
	if m := quoted.FindStringSubmatch(usage); m != nil && len(m[1]) <= 16 {
		value = m[1]
	}
	return value, quoted.ReplaceAllString(usage, "$1")
}

// writeColumns writes text beside head from column on, or below it if head is too long.
func writeColumns(b *strings.Builder, head string, column int, text string) {
	line := head
	if head != "" && utf8.RuneCountInString(head)+2 > column {
		b.WriteString(line + "\n")
		line = ""
	}
	line += strings.Repeat(" ", column-utf8.RuneCountInString(line))
	empty := true
	for _, word := range strings.Fields(text) {
		if !empty && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > helpWidth {
			b.WriteString(line + "\n")
			line, empty = strings.Repeat(" ", column), true
		}
		if !empty {
			line += " "
		}
		line, empty = line+word, false
	}
	b.WriteString(line + "\n")
}
