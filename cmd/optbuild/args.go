package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// normaliseArgs lets flags stand behind arguments, values stick to short flags and global flags stand behind the command, as
// docker's command line allows and urfave/cli does not: `build . -Dtapp` becomes `-D build -t app -- .`
func normaliseArgs(args []string) []string {
	if len(args) == 0 {
		return args
	}
	if len(args) == 2 && (args[1] == "--version" || args[1] == "-v") {
		return []string{args[0], "version"}
	}
	global := globalFlags()
	p := parsed{flags: []string{args[0]}}
	rest := p.take(args[1:], global, nil, true)
	for _, c := range commands() {
		if len(rest) > 0 && c.HasName(rest[0]) {
			command := normaliseCommand(c, rest, global, &p)
			if p.bare != "" {
				return append(p.flags, p.bare)
			}
			return append(p.flags, command...)
		}
	}
	if p.bare != "" {
		return append(p.flags, p.bare)
	}
	return append(p.flags, rest...)
}

// normaliseCommand returns the arguments of a command that begin with its name; global flags among them go to outer.
func normaliseCommand(c *cli.Command, args []string, global []cli.Flag, outer *parsed) []string {
	if len(args) > 1 {
		for _, sub := range c.Subcommands {
			if sub.HasName(args[1]) {
				return append([]string{args[0]}, normaliseCommand(sub, args[1:], global, outer)...)
			}
		}
	}
	p := parsed{flags: []string{args[0]}}
	p.take(args[1:], c.Flags, global, false)
	outer.flags = append(outer.flags, p.outer...)
	if p.bare != "" {
		if findFlag(c.Flags, nil, strings.TrimLeft(p.bare, "-")) == nil {
			outer.bare = p.bare
		}
		return []string{args[0], p.bare} // with what follows, that would be taken for the value
	}
	if slices.Contains(p.flags, "--help") || slices.Contains(p.flags, "-h") {
		return []string{args[0], "--help"} // with an argument, urfave/cli takes it for a command's name
	}
	if len(p.positional) > 0 {
		p.flags = append(p.flags, "--")
	}
	return append(p.flags, p.positional...)
}

// parsed is a command line, taken apart.
type parsed struct {
	flags, outer, positional []string
	bare                     string // the last flag, if its value is missing
}

// take sorts arguments into flags of known and their values, those of outer, and positional ones; a flag that nobody knows
// counts as known's, whose owner reports it. With stop it ends at the first argument that is no flag, and returns the rest.
func (p *parsed) take(args []string, known, outer []cli.Flag, stop bool) (rest []string) {
	for len(args) > 0 {
		a := args[0]
		switch {
		case a == "--" && stop:
			return args
		case a == "--":
			p.positional = append(p.positional, args[1:]...)
			return nil
		case len(a) < 2 || a[0] != '-':
			if stop {
				return args
			}
			p.positional = append(p.positional, a)
			args = args[1:]
			continue
		}
		args = args[1:]
		name, value, glued := strings.Cut(strings.TrimPrefix(a[1:], "-"), "=")
		if !strings.HasPrefix(a, "--") && len(name) > 1 && findFlag(known, outer, name[:1]) != nil { // -tapp, -qD, -tapp=1
			short := findFlag(known, outer, name[:1])
			name, value, glued = name[:1], a[2:], true
			if !takesValue(short) {
				args = append([]string{"-" + value}, args...)
				glued = false
			}
		}
		f := findFlag(known, outer, name)
		to := &p.flags
		if f != nil && findFlag(known, nil, name) == nil {
			to = &p.outer
		}
		switch dashed := dash(name); {
		case f == nil:
			*to = append(*to, a)
		case glued && takesValue(f): // apart, since the value may be empty
			*to = append(*to, dashed, value)
		case glued:
			*to = append(*to, dashed+"="+value)
		case takesValue(f) && len(args) > 0:
			*to = append(*to, dashed, args[0])
			args = args[1:]
		case takesValue(f):
			p.bare = dashed
		default:
			*to = append(*to, dashed)
		}
	}
	return nil
}

func dash(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

func findFlag(flags, more []cli.Flag, name string) cli.Flag {
	for _, list := range [][]cli.Flag{flags, more} {
		for _, f := range list {
			if slices.Contains(f.Names(), name) {
				return f
			}
		}
	}
	return nil
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}
