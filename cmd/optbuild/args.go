package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// normaliseArgs lets flags stand behind arguments and values stick to short flags, as docker's command line allows and
// urfave/cli does not: `build . -t app` becomes `build -t app .`, `-fDockerfile` becomes `-f Dockerfile`. Global flags may
// stand behind the command's name, too: `build --root /x .` becomes `--root /x build .`.
func normaliseArgs(args []string) []string {
	if len(args) == 0 {
		return args
	}
	out := []string{args[0]}
	rest := args[1:]
	// Global flags, up to the command's name.
	rest, out, _ = takeFlags(rest, out, globalFlags(), nil, true)
	if len(rest) == 0 {
		return out
	}
	name := rest[0]
	for _, c := range commands() {
		if c.HasName(name) {
			global, own := normaliseCommand(c, rest)
			return slices.Concat(out, global, own)
		}
	}
	return append(out, rest...)
}

// normaliseCommand returns the global flags among a command's arguments, and the rest.
func normaliseCommand(c *cli.Command, args []string) (global, own []string) {
	if len(c.Subcommands) > 0 && len(args) > 1 {
		for _, sub := range c.Subcommands {
			if sub.HasName(args[1]) {
				global, own = normaliseCommand(sub, args[1:])
				return global, append([]string{args[0]}, own...)
			}
		}
	}
	_, flags, positional := takeFlags(args[1:], nil, slices.Concat(c.Flags, globalFlags()), nil, false)
	own = []string{args[0]}
	for i := 0; i < len(flags); i++ {
		to := &own
		name, _, hasValue := strings.Cut(strings.TrimLeft(flags[i], "-"), "=")
		f := findFlag(c.Flags, name)
		if f == nil {
			if f = findFlag(globalFlags(), name); f != nil {
				to = &global
			}
		}
		*to = append(*to, flags[i])
		if f != nil && takesValue(f) && !hasValue && i+1 < len(flags) {
			i++
			*to = append(*to, flags[i])
		}
	}
	if len(positional) > 0 {
		own = append(own, "--")
	}
	return global, append(own, positional...)
}

// takeFlags moves flags and their values from args to flags and everything else to positional. With stop it ends at the
// first argument that is not a flag and returns the rest.
func takeFlags(args, flags []string, known []cli.Flag, positional []string, stop bool) (rest, flagsOut, positionalOut []string) {
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--" && stop:
			return args[i:], flags, positional
		case a == "--":
			return nil, flags, append(positional, args[i+1:]...)
		case len(a) < 2 || a[0] != '-':
			if stop {
				return args[i:], flags, positional
			}
			positional = append(positional, a)
			continue
		}
		name, _, hasValue := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if !strings.HasPrefix(a, "--") && len(name) > 1 {
			if f := findFlag(known, name[:1]); f != nil && findFlag(known, name) == nil {
				flags, hasValue = append(flags, "-"+name[:1]), true
				if takesValue(f) {
					flags = append(flags, strings.TrimPrefix(a[2:], "="))
				} else if len(a) > 2 { // -qD
					args = append(append(args[:i+1:i+1], "-"+a[2:]), args[i+1:]...)
				}
				continue
			}
		}
		flags = append(flags, a)
		if f := findFlag(known, name); f != nil && takesValue(f) && !hasValue && i+1 < len(args) {
			i++
			flags = append(flags, args[i])
		}
	}
	return nil, flags, positional
}

func findFlag(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		for _, n := range f.Names() {
			if n == name {
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
