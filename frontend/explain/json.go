package explain

import (
	"encoding/json"
	"io"

	"github.com/optbuild/optbuild/frontend/opt"
)

// Remark is a remark as tools see it: in the lines of JSON, and in the array optbuild.remarks of a build's metadata file. Its fields' names are
// stable.
type Remark struct {
	Kind    opt.Kind
	Pass    string
	Name    string
	Pos     Pos
	Message string
	Args    []opt.Arg
	Seconds float64   // that the step last took, 0 if not known
	Keeps   opt.Keeps `json:",omitempty"` // of a passed remark
	Residue []string  `json:",omitempty"` // paths below which the image lacks what stock BuildKit's would hold
	Warning bool      `json:",omitempty"`
}

// Pos is a range of lines of the user's file, from 1, both included.
type Pos struct {
	File        string
	First, Last int
}

// NewRemark is r for tools.
func NewRemark(r opt.Remark) Remark {
	args := r.Args
	if args == nil {
		args = []opt.Arg{}
	}
	return Remark{r.Kind, r.Pass, r.Name, Pos{r.File, r.Lines.First, r.Lines.Last}, r.Message, args, r.Seconds, r.Keeps, r.Residue, r.Warning}
}

// header is the first line of JSON.
type header struct {
	Version    int       `json:"version"`
	File       string    `json:"file"`
	Level      opt.Level `json:"level"`
	Disabled   []string  `json:"disabled,omitempty"`
	Passes     []pass    `json:"passes"`
	Assumed    []string  `json:"assumed,omitempty"`
	Remembered []string  `json:"remembered,omitempty"`
	Unknown    []string  `json:"unknown,omitempty"`
	Aside      string    `json:"aside,omitempty"`
	Broken     string    `json:"broken,omitempty"`
	Layers     string    `json:"layers,omitempty"` // see Account
}

type pass struct {
	Name    string    `json:"name"`
	Keeps   opt.Keeps `json:"keeps"`
	Changed bool      `json:"changed"`
}

// JSON writes a line about the whole, and then a line for each remark: what was done, what was not, by the seconds that it might save, and
// what is worth knowing.
func JSON(w io.Writer, a *Account) error {
	h := header{Version: 1, File: a.File, Level: a.Level, Disabled: a.Disabled, Passes: []pass{}, Assumed: a.Assumed, Remembered: a.Remembered, Unknown: a.Unknown, Aside: a.Aside, Broken: a.Broken, Layers: a.Layers}
	changed := map[string]bool{}
	for _, v := range a.Versions[1:] {
		changed[v.Pass] = true
	}
	for _, p := range a.Passes {
		h.Passes = append(h.Passes, pass{p.Name, p.Keeps, changed[p.Name]})
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(h); err != nil {
		return err
	}
	for _, k := range []opt.Kind{opt.Passed, opt.Missed, opt.Analysis} {
		for _, r := range a.Of(k) {
			if err := enc.Encode(NewRemark(r)); err != nil {
				return err
			}
		}
	}
	return nil
}
