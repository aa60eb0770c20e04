package fuzzbuild

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/optbuild/optbuild/integration/oracle"
)

// Step is what became of a RUN step in a build of optbuild.
type Step struct {
	Name    string `json:"step"` // as the Dockerfile has it
	Vertex  string
	Outcome string // executed, replayed, cached, unwatched
	Reason  string
	// Observed is the number of observations.
	Observed int
}

// The outcomes of a step.
const (
	Executed  = "executed"
	Replayed  = "replayed"
	Cached    = "cached"    // by BuildKit's own cache
	Unwatched = "unwatched" // executed, and can't be replayed
)

// readSteps reads the log of steps; without one, what the progress tells, which knows nothing of replays.
func readSteps(file string, p *progress) ([]Step, error) {
	b, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var steps []Step
	if err == nil {
		for line := range strings.Lines(string(b)) {
			var s Step
			if err := json.Unmarshal([]byte(line), &s); err != nil {
				return nil, fmt.Errorf("read the log of steps: %w in %q", err, line)
			}
			if s.Name = plainName(s.Name); isRun(s.Name) {
				steps = append(steps, s)
			}
		}
		return steps, nil
	}
	for _, digest := range p.order {
		v := p.vertices[digest]
		s := Step{Name: plainName(v.Name), Vertex: digest}
		switch {
		case v.Cached:
			s.Outcome = Cached
		case v.Started != nil:
			s.Outcome = Executed
		default:
			continue
		}
		steps = append(steps, s)
	}
	return steps, nil
}

// isCopy says that a vertex is a COPY or ADD.
func isCopy(name string) bool {
	name = plainName(name)
	return strings.HasPrefix(name, "COPY ") || strings.HasPrefix(name, "ADD ")
}

// isRun says that a vertex is a RUN step.
func isRun(name string) bool { return strings.HasPrefix(plainName(name), "RUN ") }

// plainName is a step without BuildKit's "[stage 2/3] ", its spaces made even.
func plainName(name string) string {
	if strings.HasPrefix(name, "[") {
		if _, rest, ok := strings.Cut(name, "] "); ok {
			name = rest
		}
	}
	return strings.Join(strings.Fields(name), " ")
}

// layersOf returns the layer that each RUN step of the target stage made in a clean build, by name. Steps of other stages, and those
// with the same text as another, are not in it: their layers are not known.
func layersOf(dockerfile string, image *oracle.Image) map[string]string {
	var config struct {
		History []struct {
			By    string `json:"created_by"`
			Empty bool   `json:"empty_layer"`
		}
	}
	if json.Unmarshal(image.Config, &config) != nil {
		return nil
	}
	var runs []string // layers
	at := 0
	for _, h := range config.History {
		if h.Empty {
			continue
		}
		if at >= len(image.Layers) {
			return nil
		}
		if strings.HasPrefix(h.By, "RUN ") {
			runs = append(runs, image.Layers[at])
		}
		at++
	}
	if at != len(image.Layers) { // the base has layers without history
		return nil
	}
	names := lastStage(dockerfile)
	if len(names) != len(runs) {
		return nil
	}
	out, twice := map[string]string{}, map[string]bool{}
	for i, name := range names {
		if _, ok := out[name]; ok {
			twice[name] = true
		}
		out[name] = runs[i]
	}
	for name := range twice {
		delete(out, name)
	}
	return out
}

// layerBook remembers which layers a step made in clean builds of what a state directory has built.
type layerBook map[string]map[string]bool

// note records the steps' clean layers, and returns which executed steps made nothing new.
func (b layerBook) note(dockerfile string, clean *oracle.Image, steps []Step) (needless []Step) {
	layers := layersOf(dockerfile, clean)
	for _, s := range steps {
		layer, known := layers[s.Name]
		if known && (s.Outcome == Executed || s.Outcome == Unwatched) && b[s.Name][layer] {
			needless = append(needless, s)
		}
	}
	for name, layer := range layers {
		if b[name] == nil {
			b[name] = map[string]bool{}
		}
		b[name][layer] = true
	}
	return needless
}

// lastStage are the names of the RUN steps of a Dockerfile's last stage.
func lastStage(dockerfile string) []string {
	parsed, err := parser.Parse(strings.NewReader(dockerfile))
	if err != nil {
		return nil
	}
	var names []string
	for _, n := range parsed.AST.Children {
		switch strings.ToUpper(n.Value) {
		case "FROM":
			names = nil
		case "RUN":
			names = append(names, plainName(n.Original))
		}
	}
	return names
}
