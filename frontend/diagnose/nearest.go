package diagnose

import (
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
)

// nearest finds the path in files that the user most likely meant by one that is not there, "" if none is like it: the
// name with a slip of the keyboard in it, the same name in another directory, or a name that is somewhat like it.
func nearest(files fs.FS, missing string) string {
	slip := func(name string) int { return min(2, len(name)/4) }
	alike := func(name string) int { return max(1, len(name)/3) }
	if found := similar(files, missing, slip); found != "" {
		return found
	}
	if found := elsewhere(files, path.Base(missing)); found != "" {
		return found
	}
	return similar(files, missing, alike)
}

// similar compares one directory of the path at a time, without regard to case. limit bounds the edits in a name.
func similar(files fs.FS, missing string, limit func(name string) int) string {
	at := "."
	for _, name := range strings.Split(missing, "/") {
		next := path.Join(at, name)
		if _, err := fs.Stat(files, next); err == nil {
			at = next
			continue
		}
		entries, err := fs.ReadDir(files, at)
		if err != nil {
			return ""
		}
		best, distance := "", limit(name)+1
		for _, e := range entries {
			d := levenshtein.Distance(strings.ToLower(name), strings.ToLower(e.Name()), nil)
			if d < distance {
				best, distance = e.Name(), d
			}
		}
		if best == "" {
			return ""
		}
		at = path.Join(at, best)
	}
	return at
}

// searchLimit bounds the entries that a search looks at; contexts can be large.
const searchLimit = 20_000

// elsewhere finds the path with the fewest directories that ends in a name.
func elsewhere(files fs.FS, name string) string {
	best, seen := "", 0
	queue := []string{"."}
	for len(queue) > 0 && best == "" && seen < searchLimit { // breadth first
		dir := queue[0]
		queue = queue[1:]
		entries, err := fs.ReadDir(files, dir)
		if err != nil {
			continue
		}
		seen += len(entries)
		for _, e := range entries {
			if e.Name() == name && best == "" {
				best = path.Join(dir, e.Name())
			}
			if e.IsDir() && !slices.Contains([]string{".git", "node_modules"}, e.Name()) {
				queue = append(queue, path.Join(dir, e.Name()))
			}
		}
	}
	return best
}
