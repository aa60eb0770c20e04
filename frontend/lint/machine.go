package lint

import (
	"encoding/json"
	"io"
)

// report is what JSON writes.
type report struct {
	Version  int       `json:"version"`
	Findings []Finding `json:"findings"`
}

// JSON writes findings for programs: one object, {"version":1,"findings":[...]}.
func JSON(w io.Writer, list []Finding) error {
	if list == nil {
		list = []Finding{}
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(report{1, list})
}
