package opt

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/optbuild/optbuild/frontend/plan"
)

// Kind is what a remark says.
type Kind string

const (
	Passed   Kind = "passed"   // a rewrite was made
	Missed   Kind = "missed"   // a rewrite was considered and refused
	Analysis Kind = "analysis" // something worth knowing
)

// Remark says what a pass did or did not do, and where.
type Remark struct {
	Kind    Kind
	Pass    string
	Name    string // stable: tools may match it
	File    string
	Lines   plan.Lines
	Step    int      // the step's ID when the remark was made
	Also    []int    `json:",omitempty"` // IDs of the other steps that the rewrite touches, or would touch
	Message string   // a sentence, without final stop
	Args    []Arg    `json:",omitempty"`
	Keeps   Keeps    `json:",omitempty"` // of a passed remark
	Residue []string `json:",omitempty"` // absolute paths below which the image lacks what it would hold; of a passed remark
	Warning bool     `json:",omitempty"` // shown without being asked
	Seconds float64  `json:",omitempty"` // last measured time of the step, 0 if not known
}

// Arg is a named value of a remark.
type Arg struct{ Key, Value string }

// String is the remark for a terminal: "Dockerfile:7: missed split-copy/npmrc: ...".
func (r Remark) String() string {
	lines := fmt.Sprint(r.Lines.First)
	if r.Lines.Last != r.Lines.First {
		lines += fmt.Sprintf("-%d", r.Lines.Last)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%s: %s %s/%s: %s", r.File, lines, r.Kind, r.Pass, r.Name, r.Message)
	if len(r.Residue) > 0 {
		fmt.Fprintf(&b, " (not in the image: %s)", strings.Join(r.Residue, ", "))
	}
	return b.String()
}

// MarshalJSON writes the level's name.
func (k Keeps) MarshalJSON() ([]byte, error) { return json.Marshal(k.String()) }

// UnmarshalJSON reads what MarshalJSON writes.
func (k *Keeps) UnmarshalJSON(b []byte) error {
	var name string
	if err := json.Unmarshal(b, &name); err != nil {
		return err
	}
	for v, n := range keepsNames {
		if n == name {
			*k = v
			return nil
		}
	}
	return fmt.Errorf("unknown level %q", name)
}
