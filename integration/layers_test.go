package integration

import (
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/optbuild/optbuild/integration/oracle"
)

// image-differs REF REF [PATH]...: the second image has the files and the configuration of the first one, but for the paths and what is below
// them, which the first one has and it has not.
func imageDiffersBy(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) >= 2, "image-differs REF REF [PATH]...")
	var r oracle.Reader
	var images [2]*oracle.Image
	for i := range images {
		var err error
		images[i], err = r.Read(openImage(ts, args[i]))
		ts.Check(err)
	}
	paths := args[2:]
	if d := oracle.Compare(images[0], images[1], oracle.Rules{Level: oracle.LevelFiles, Residue: paths}); d != nil {
		ts.Fatalf("%s is not what %s is:\n%s", args[1], args[0], strings.Join(d, "\n"))
	}
	for _, p := range paths {
		if _, ok := images[0].Tree[p]; !ok {
			ts.Fatalf("%s has no %s to begin with", args[0], p)
		}
		if _, ok := images[1].Tree[p]; ok {
			ts.Fatalf("%s has %s", args[1], p)
		}
	}
}
