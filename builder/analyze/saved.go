package analyze

import (
	"regexp"
	"slices"
	"strings"

	"github.com/docker/go-units"
)

// leftOut matches what the export says in the comments of the history about what it left out (see builder/export): "left out: apt-lists
// (41.2MB, 12 files)". The wording may change, and other builders' comments may say anything: what does not match is told as it is.
var leftOut = regexp.MustCompile(`(?i)\b(?:left out|stripped):?\s+([a-z0-9\-]+)\s*\(\s*([0-9][0-9.,]*\s*(?:[kMGT]i?)?B)\b`)

// stripped reads how much a comment says was left out of a layer, and by which rules.
func stripped(comment string) (bytes int64, rules []string) {
	for _, m := range leftOut.FindAllStringSubmatch(comment, -1) {
		n, err := units.FromHumanSize(strings.ReplaceAll(m[2], ",", ""))
		if err != nil {
			continue
		}
		bytes += n
		rules = append(rules, m[1])
	}
	slices.Sort(rules)
	return bytes, slices.Compact(rules)
}

// builders are comments that say nothing but which program wrote the entry.
var builders = []string{"buildkit.dockerfile.v0", "buildkit.exporter.image.v0"}

// plainComment is a comment without those.
func plainComment(comment string) string {
	for _, b := range builders {
		if comment == b {
			return ""
		}
		comment = strings.TrimPrefix(comment, b+"; ")
	}
	return comment
}
