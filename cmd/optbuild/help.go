package main

import (
	"strings"

	"github.com/urfave/cli/v2"
)

// flagLine is a flag's line in the help: short name, long names, the value's placeholder, what it does, where else it can
// come from. A flag that can be given several times looks like any other; its usage tells.
func flagLine(f cli.Flag) string {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return ""
	}
	short, long := "    ", ""
	for _, n := range f.Names() {
		switch {
		case len(n) == 1:
			short = "-" + n + ", "
		case long == "":
			long = "--" + n
		default:
			long += ", --" + n
		}
	}
	placeholder, usage := "", d.GetUsage()
	if before, rest, ok := strings.Cut(usage, "`"); ok {
		if name, after, ok := strings.Cut(rest, "`"); ok {
			placeholder, usage = name, before+name+after
		}
	}
	if placeholder == "" && d.TakesValue() {
		placeholder = "VALUE"
	}
	if v := d.GetDefaultText(); v != "" && d.TakesValue() && !strings.Contains(usage, "(default") {
		usage += " (default: " + strings.Trim(v, "\"") + ")"
	}
	if env := d.GetEnvVars(); len(env) > 0 {
		usage += " [$" + strings.Join(env, ", $") + "]"
	}
	return strings.TrimRight(short+long+" "+placeholder, " ") + "\t" + usage
}
