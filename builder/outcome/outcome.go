// Package outcome is how the engine tells commands what became of a RUN, and why.
//
// An [Outcome] travels with BuildKit's progress, as the status of a vertex: displays show its line as they show all statuses, and commands that
// know of it read the rest. It knows neither engine nor terminal.
package outcome

import (
	"encoding/json"
	"strings"

	"github.com/moby/buildkit/client"
)

// Result says what was done for a step.
type Result string

const (
	Executed  Result = "executed"  // it ran, watched: it can be replayed from now on
	Unwatched Result = "unwatched" // it ran, and counts as having read everything
	Replayed  Result = "replayed"  // its stored layer stands for what it would have made
)

// FirstBuild is the reason of a step of which nothing is known. It goes without saying: displays need not show it.
const FirstBuild = "first build"

// Outcome is what became of one RUN.
type Outcome struct {
	Vertex   string   `json:"vertex"` // digest
	Step     string   `json:"step"`   // as progress names it, without its number
	Platform string   `json:"platform,omitempty"`
	Result   Result   `json:"outcome"`
	Reason   string   `json:"reason,omitempty"`   // why it ran: "package-lock.json changed"
	Details  []string `json:"details,omitempty"`  // more of the same, if there is more than one reason
	Unseen   string   `json:"unseen,omitempty"`   // why it was not watched
	Machine  bool     `json:"machine,omitempty"`  // Unseen holds for every step that this machine runs: there is no /dev/fuse
	Observed int      `json:"observed,omitempty"` // names of the copied files that it asked for
}

// action marks statuses that carry an outcome.
const action = "optbuild.outcome "

// Status returns the line that displays show which do not know of outcomes, and what carries the outcome beside it. The line names the vertex:
// of several statuses that have the same id and come at once, BuildKit keeps one, whatever their vertices.
func (o Outcome) Status() (id, name string) {
	id = o.String() + " (step " + shortened(o.Vertex) + ")"
	b, err := json.Marshal(o)
	if err != nil {
		return id, ""
	}
	return id, action + string(b)
}

func shortened(vertex string) string {
	const most = 12 // digits
	_, hex, _ := strings.Cut(vertex, ":")
	return hex[:min(most, len(hex))]
}

// Parse reads the outcome that a status carries.
func Parse(s *client.VertexStatus) (Outcome, bool) {
	text, ok := strings.CutPrefix(s.Name, action)
	var o Outcome
	if !ok || json.Unmarshal([]byte(text), &o) != nil {
		return Outcome{}, false
	}
	return o, true
}

// String is the outcome in one line.
func (o Outcome) String() string {
	switch o.Result {
	case Replayed:
		return "replayed: nothing that it read has changed"
	case Unwatched:
		if o.Reason == "" {
			return "ran, not watched: " + o.Unseen
		}
		return "ran, not watched (" + o.Unseen + "): " + o.Reason
	}
	if o.Reason == "" {
		return "ran"
	}
	return "ran: " + o.Reason
}

// emulated marks the statuses of steps that run under an emulator.
const emulated = "optbuild.emulated "

// Emulated is the status of a step that runs under an emulator for a platform: its line, and what carries the platform beside it.
func Emulated(vertex, platform string) (id, name string) {
	return "emulated: " + platform + " (step " + shortened(vertex) + ")", emulated + platform
}

// ParseEmulated returns the platform that a step is emulated for.
func ParseEmulated(s *client.VertexStatus) (platform string, ok bool) {
	return strings.CutPrefix(s.Name, emulated)
}
