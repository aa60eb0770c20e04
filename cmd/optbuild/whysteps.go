package main

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"

	"github.com/optbuild/optbuild/builder/outcome"
	"github.com/optbuild/optbuild/frontend"
)

// What becomes of a step, besides what the engine tells of it (package outcome).
const (
	becameCached   = "cached"   // BuildKit's cache had it
	becameFailed   = "failed"   // it ran
	becameCanceled = "canceled" // another step failed, or the build was interrupted
	becameNothing  = "skipped"  // the build ended before it was its turn
)

// How steps run.
const (
	native   = "native"
	shared   = "shared"
	cross    = "cross"
	emulated = "emulated"
)

// toldStep is what became of one step. Its JSON is a line of `optbuild why --json`: the names stay.
type toldStep struct {
	Step     string   `json:"step"` // as progress names it, without stage and number
	Stage    string   `json:"stage,omitempty"`
	Platform string   `json:"platform,omitempty"`
	File     string   `json:"file,omitempty"`     // the Dockerfile, absolute; "" if it was not a local file
	Line     int      `json:"line,omitempty"`     // of the Dockerfile, from 1; 0 if it is not known
	LastLine int      `json:"lastLine,omitempty"` // of the instruction, or of those that were merged
	Vertex   string   `json:"vertex"`             // digest
	Outcome  string   `json:"outcome"`            // executed, unwatched, replayed, cached, failed, canceled, skipped
	Reason   string   `json:"reason,omitempty"`   // why it ran; "" if it did not, or if that is not known
	Details  []string `json:"details,omitempty"`  // more reasons
	Unseen   string   `json:"unseen,omitempty"`   // why it was not watched
	Observed int      `json:"observed,omitempty"` // names that it looked up in what was copied, there or not
	Seconds  float64  `json:"seconds"`
	// How says where it runs, in a build for other platforms than this machine's: native, shared (once for images of several platforms), cross (on this machine's platform, for another) or emulated; "" elsewhere, and if it did not run.
	How string `json:"how,omitempty"`

	order   int  // in which the engine named it
	machine bool // Unseen holds for all steps
}

// ran says that something was executed for the step.
func (s toldStep) ran() bool {
	return s.Outcome == string(outcome.Executed) || s.Outcome == string(outcome.Unwatched) || s.Outcome == becameFailed || s.Outcome == becameCanceled
}

// isRun tells a RUN, which may be watched, from what is copied and pulled.
func (s toldStep) isRun() bool { return strings.HasPrefix(s.Step, "RUN ") }

// stepOutcomes notes what becomes of the vertices of a build.
type stepOutcomes struct {
	mu       sync.Mutex
	vertices map[digest.Digest]*vertexOutcome
}

type vertexOutcome struct {
	name     string
	order    int
	started  bool
	ended    bool // for now: it may start again
	cached   bool
	failed   string        // its error
	took     time.Duration // until it failed
	told     outcome.Outcome
	resolved bool   // it is an image
	pulled   bool   // and was not there
	emulated string // for which platform
}

func newStepOutcomes() *stepOutcomes {
	return &stepOutcomes{vertices: map[digest.Digest]*vertexOutcome{}}
}

func (o *stepOutcomes) observe(s *client.SolveStatus) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, v := range s.Vertexes {
		at := o.vertex(v.Digest)
		at.name = v.Name
		if v.Started == nil {
			continue
		}
		// A cached step whose layer is fetched later begins once more, for that.
		at.started, at.ended, at.cached, at.failed = true, v.Completed != nil, at.cached || v.Cached, v.Error
		if v.Completed != nil && v.Error != "" {
			at.took = v.Completed.Sub(*v.Started)
		}
	}
	for _, st := range s.Statuses {
		at := o.vertex(st.Vertex)
		if told, ok := outcome.Parse(st); ok {
			at.told = told
		}
		if platform, ok := outcome.ParseEmulated(st); ok {
			at.emulated = platform
		}
		at.resolved = at.resolved || strings.HasPrefix(st.ID, "resolve ")
		at.pulled = at.pulled || digest.Digest(st.ID).Validate() == nil
	}
}

func (o *stepOutcomes) vertex(d digest.Digest) *vertexOutcome {
	at := o.vertices[d]
	if at == nil {
		at = &vertexOutcome{order: len(o.vertices)}
		o.vertices[d] = at
	}
	return at
}

// steps lists what is known of the Dockerfile's steps, in the order in which the engine named them. The report, which tells their lines, is nil for builds that
// failed. times are of the same build.
func (o *stepOutcomes) steps(report *frontend.Report, failed bool, times *stepTimes) []toldStep {
	o.mu.Lock()
	defer o.mu.Unlock()
	byName := map[string]toldStep{} // what one instruction was made of may be several vertices
	for d, at := range o.vertices {
		stage, platform, text, ok := splitName(at.name)
		if !ok {
			continue
		}
		s := toldStep{
			Step: clip(text, longestStep), Stage: stage, Platform: platform, Vertex: string(d), Outcome: at.became(),
			Reason: clip(at.told.Reason, longestReason), Unseen: clip(at.told.Unseen, longestReason), Observed: at.told.Observed,
			Seconds: times.took(d).Seconds() + at.took.Seconds(), order: at.order, machine: at.told.Machine,
		}
		for _, r := range at.told.Details {
			if r != at.told.Reason && len(s.Details) < mostDetails {
				s.Details = append(s.Details, clip(r, longestReason))
			}
		}
		if at.told.Platform != "" {
			s.Platform = at.told.Platform
		}
		switch {
		case !s.ran() || !s.isRun():
		case at.emulated != "":
			s.Platform, s.How = at.emulated, emulated
		case report != nil && report.Steps[string(d)].Images > 1:
			s.How = shared
		case strings.Contains(platform, "->"):
			s.How = cross
		case platform != "":
			s.How = native
		}
		if report != nil {
			lines := report.Steps[s.Vertex].Lines
			s.Line, s.LastLine = lines.First, lines.Last
		}
		other, again := byName[at.name]
		if again && (other.ran() && !s.ran() || other.ran() == s.ran() && other.order < s.order) {
			s, other = other, s
		}
		if again {
			s.Seconds += other.Seconds
		}
		byName[at.name] = s
	}
	var list []toldStep
	for _, s := range byName {
		if s.Outcome != becameNothing || failed { // a build that went well did not need it
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b toldStep) int { return a.order - b.order })
	return list
}

// became sums up.
func (v *vertexOutcome) became() string {
	switch {
	case !v.started:
		return becameNothing
	case strings.HasSuffix(v.failed, "context canceled"), !v.ended:
		return becameCanceled
	case v.failed != "":
		return becameFailed
	case v.told.Result != "":
		return string(v.told.Result)
	case v.cached, v.resolved && !v.pulled:
		return becameCached
	}
	return string(outcome.Executed)
}

// splitName takes the name of an instruction's vertex apart: "[linux/arm64 build 2/3] RUN make".
func splitName(name string) (stage, platform, text string, ok bool) {
	head, text, ok := strings.Cut(name, "] ")
	words := strings.Fields(strings.TrimPrefix(head, "["))
	if !ok || head == "" || head[0] != '[' || len(words) == 0 {
		return "", "", "", false
	}
	number, of, ok := strings.Cut(words[len(words)-1], "/")
	if _, err := strconv.Atoi(number + of); !ok || err != nil {
		return "", "", "", false
	}
	for _, w := range words[:len(words)-1] {
		if strings.Contains(w, "/") {
			platform = w
		} else {
			stage = w
		}
	}
	return stage, platform, text, true
}

// Bounds of what is kept of one step, in bytes.
const (
	longestStep   = 4 << 10
	longestReason = 1 << 10
	mostDetails   = 100
)

// clip cuts a text to a size.
func clip(s string, size int) string {
	if len(s) <= size {
		return s
	}
	s = s[:size]
	for !utf8.ValidString(s) && len(s) > size-utf8.UTFMax {
		s = s[:len(s)-1]
	}
	return s + "..."
}
