package export

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/optbuild/optbuild/builder/export/strip"
)

// Attributes of an exporter that say what is done to its image. Without them nothing is: a foreign client gets BuildKit's image.
const (
	AttrSquash = "optbuild-squash" // off, runs or stage
	AttrStrip  = "optbuild-strip"  // see strip.Parse
	AttrKept   = "optbuild-kept"   // paths that are left out in no case, see FormatKept
)

// OffKey is where the frontend says, in the metadata of its result, what the Dockerfile forbids: "squash", "strip", "strip-" and a rule's name, or "*", separated by commas;
// nothing, if it forbids nothing. A frontend that says so also gives the base image's configuration, unless the image begins with scratch.
const OffKey = "optbuild.layers.off"

// Squash says which layers become one.
type Squash string

// The values of --squash.
const (
	SquashOff   Squash = "off"   // none
	SquashRuns  Squash = "runs"  // those of adjacent RUNs
	SquashStage Squash = "stage" // all that lie on the base image
)

// ParseSquash reads --squash.
func ParseSquash(text string) (Squash, error) {
	switch s := Squash(text); s {
	case SquashOff, SquashRuns, SquashStage:
		return s, nil
	}
	return "", fmt.Errorf("%q is not off, runs or stage", text)
}

// Options say what is done to an image.
type Options struct {
	Squash Squash
	Strip  strip.Set
	Kept   []string // paths that the image's program is known to use
}

// nothing is true if the image stays as it is.
func (o Options) nothing() bool {
	return (o.Squash == "" || o.Squash == SquashOff) && len(o.Strip) == 0
}

// FormatKept returns the value of AttrKept.
func FormatKept(paths []string) (string, error) {
	b, err := json.Marshal(paths)
	return string(b), err
}

// takeOptions takes the options out of an exporter's attributes, which it copies.
func takeOptions(attrs map[string]string) (o Options, rest map[string]string, err error) {
	rest = maps.Clone(attrs)
	delete(rest, AttrSquash)
	delete(rest, AttrStrip)
	delete(rest, AttrKept)
	o.Squash = SquashOff
	if v, ok := attrs[AttrSquash]; ok {
		if o.Squash, err = ParseSquash(v); err != nil {
			return o, nil, fmt.Errorf("%s: %w", AttrSquash, err)
		}
	}
	if v, ok := attrs[AttrStrip]; ok {
		if o.Strip, err = strip.Parse(v); err != nil {
			return o, nil, fmt.Errorf("%s: %w", AttrStrip, err)
		}
	}
	if v, ok := attrs[AttrKept]; ok {
		if err := json.Unmarshal([]byte(v), &o.Kept); err != nil {
			return o, nil, fmt.Errorf("%s: %w", AttrKept, err)
		}
	}
	return o, rest, nil
}

// without leaves out what the Dockerfile forbids.
func (o Options) without(off string) Options {
	for word := range strings.SplitSeq(off, ",") {
		switch word = strings.TrimSpace(word); word {
		case "*":
			return Options{Squash: SquashOff}
		case "squash":
			o.Squash = SquashOff
		case "strip":
			o.Strip = nil
		default:
			rule, _ := strings.CutPrefix(word, "strip-")
			o.Strip = slices.DeleteFunc(slices.Clone(o.Strip), func(s string) bool { return word != rule && s == rule })
		}
	}
	return o
}
