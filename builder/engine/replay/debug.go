package replay

import (
	"os"
	"strings"
)

// debug is what OPTBUILD_DEBUG asks for, words separated by commas.
type debug struct {
	hash   bool // the lines that go into each weak key are logged
	trace  bool // what each step looked at is logged
	verify bool // a step that would be replayed is run, and the results are compared
}

func debugFromEnv() (d debug) {
	for word := range strings.SplitSeq(os.Getenv("OPTBUILD_DEBUG"), ",") {
		switch strings.TrimSpace(word) {
		case "hash":
			d.hash = true
		case "trace":
			d.trace = true
		case "verify":
			d.verify = true
		}
	}
	return d
}
