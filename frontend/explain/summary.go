package explain

import (
	"fmt"
	"strings"

	"github.com/optbuild/optbuild/frontend/opt"
)

// deeds are what rewrites are called in a summary, one and many. A pass that is not here is called by its name; one with empty words is not
// mentioned, since BuildKit would have done the same.
var deeds = map[string][2]string{
	"dead-stages":   {},
	"sink-volatile": {"volatile value moved down", "volatile values moved down"},
	"split-copy":    {"COPY split", "COPYs split"},
	"cache-mounts":  {"cache mount", "cache mounts"},
	"merge-run":     {"RUN merged", "RUNs merged"},
	"fold-metadata": {"chmod or chown folded into its COPY", "chmods and chowns folded into their COPY"},
	"add-to-copy":   {"ADD made COPY", "ADDs made COPY"},
	"link":          {"COPY linked", "COPYs linked"},
	"cross-build":   {"stage cross-built", "stages cross-built"},
	"share-stages":  {"stage shared by platforms", "stages shared by platforms"},
}

// Summary says in one line what was done, and whether there is more to read: "optimized: 2 cache mounts, 1 RUN merged; 3 more possible (optbuild
// explain)". It is "" if nothing was done and nothing was refused.
func Summary(a *Account) string {
	var order []string
	counts := map[string]int{}
	missed := 0
	for _, r := range a.Remarks {
		switch r.Kind {
		case opt.Passed:
			if words, known := deeds[r.Pass]; known && words[0] == "" {
				continue
			}
			if counts[r.Pass] == 0 {
				order = append(order, r.Pass)
			}
			counts[r.Pass]++
		case opt.Missed:
			if r.Name != "kept" { // by a pragma, that is, as the user wishes
				missed++
			}
		}
	}
	var parts []string
	for _, pass := range order {
		words, known := deeds[pass]
		switch n := counts[pass]; {
		case !known:
			parts = append(parts, fmt.Sprintf("%d by %s", n, pass))
		case n == 1:
			parts = append(parts, "1 "+words[0])
		default:
			parts = append(parts, fmt.Sprintf("%d %s", n, words[1]))
		}
	}
	switch {
	case parts == nil && missed == 0:
		return ""
	case parts == nil:
		return fmt.Sprintf("optimized: nothing; %d possible (optbuild explain)", missed)
	case missed == 0:
		return "optimized: " + strings.Join(parts, ", ") + " (optbuild explain)"
	}
	return fmt.Sprintf("optimized: %s; %d more possible (optbuild explain)", strings.Join(parts, ", "), missed)
}
