package integration

import (
	"fmt"

	"github.com/rogpeppe/go-internal/testscript"
)

// [!] same-image REF REF: the images have the same digest.
func sameImage(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, false, len(args) == 2, "[!] same-image REF REF")
	var digests [2]string
	for i := range digests {
		d, err := openImage(ts, args[i]).Digest()
		ts.Check(err)
		digests[i] = d.String()
	}
	checkSame(ts, neg, args, digests[0], digests[1])
}

// [!] same-layers REF REF: the images' layers have the same digests.
func sameLayers(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, false, len(args) == 2, "[!] same-layers REF REF")
	var layers [2]string
	for i := range layers {
		m, err := openImage(ts, args[i]).Manifest()
		ts.Check(err)
		for _, l := range m.Layers {
			layers[i] += l.Digest.String() + "\n"
		}
	}
	checkSame(ts, neg, args, layers[0], layers[1])
}

func checkSame(ts *testscript.TestScript, neg bool, args []string, a, b string) {
	if (a == b) == neg {
		ts.Fatalf("%s", fmt.Sprintf("%s is\n%s\n%s is\n%s", args[0], a, args[1], b))
	}
}
