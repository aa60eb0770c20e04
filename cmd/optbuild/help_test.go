package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

func TestCommandHelp(t *testing.T) {
	c := &cli.Command{
		Name: "paint", Aliases: []string{"p"}, Usage: "paint a wall", ArgsUsage: "WALL",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "colour", Aliases: []string{"c"}, Usage: "`COLOUR` of the wall, one for each coat, first the one that is to be seen least"},
			&cli.BoolFlag{Name: "dry", Usage: "don't"},
			&cli.BoolFlag{Name: "secretly", Hidden: true},
			&cli.StringFlag{Name: "with", Value: "brush", EnvVars: []string{"PAINT_WITH"}, Usage: "`brush|roller|a-very-long-list-of-other-things`"},
		},
	}
	want := `Usage:  optbuild paint [OPTIONS] WALL

paint a wall

Aliases: p

Options:
  -c, --colour COLOUR         COLOUR of the wall, one for each coat, first the
                              one that is to be seen least (repeatable)
      --dry                   don't
      --with VALUE            brush|roller|a-very-long-list-of-other-things
                              (default: brush) [$PAINT_WITH]

Options of all commands, such as --root: ` + "`optbuild --help`\n"
	if got := commandHelp(c, "optbuild paint"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// The help of every command is printed whole, and fits into a terminal.
func TestHelp(t *testing.T) {
	commandLines := []string{"--help"}
	for _, c := range commands() {
		commandLines = append(commandLines, c.Name+" --help")
		for _, sub := range c.Subcommands {
			commandLines = append(commandLines, c.Name+" "+sub.Name+" --help")
		}
	}
	for _, line := range commandLines {
		var b strings.Builder
		app := newApp()
		app.Writer = &b
		if err := app.Run(normaliseArgs(append([]string{"optbuild"}, strings.Fields(line)...))); err != nil {
			t.Fatal(err)
		}
		want := "Usage:  optbuild " + strings.TrimSuffix(line, "--help")
		if !strings.HasPrefix(b.String(), want) || !strings.HasSuffix(b.String(), "\n") {
			t.Errorf("optbuild %s\n%s", line, b.String())
		}
		for _, l := range strings.Split(b.String(), "\n") {
			if utf8.RuneCountInString(l) > helpWidth && len(strings.Fields(l)) > 1 {
				t.Errorf("optbuild %s: too long: %s", line, l)
			}
		}
	}
}
