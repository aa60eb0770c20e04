package trace

import (
	"path"
	"regexp"
	"slices"
)

// clocks are files that tools leave for people, with the time of a run in their names: whoever lists their directory gets other names each time, also in a build without any cache. By the directory's end, what the names are like.
var clocks = map[string]*regexp.Regexp{
	// npm lists its logs to remove all but the last ten.
	".npm/_logs": regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9_]+Z-debug-[0-9]+\.log$`),
}

// withoutClocks is the listing of a directory without such names.
func withoutClocks(dir string, names []Name) []Name {
	pattern := clocksOf(dir)
	if pattern == nil {
		return names
	}
	return slices.DeleteFunc(names, func(n Name) bool { return pattern.MatchString(n.Name) })
}

// hasClocks is true of a directory whose time says no more than such names do.
func hasClocks(dir string) bool { return clocksOf(dir) != nil }

func clocksOf(dir string) *regexp.Regexp {
	above, last := path.Split(dir)
	return clocks[path.Base(above)+"/"+last]
}
