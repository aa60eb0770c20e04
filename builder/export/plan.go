package export

import (
	"fmt"
	"reflect"
	"strings"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// step is one instruction that made a layer.
type step struct {
	text  string // as history has it
	entry int    // index in the history
	kind  kind
}

type kind int

const (
	other   kind = iota // COPY, ADD
	run                 // RUN
	workdir             // a directory that WORKDIR made
)

// unit is a run of layers that becomes one layer of the image.
type unit struct {
	first, last int // indices of layers
	steps       []step
}

func (u unit) runs() (n int) {
	for _, s := range u.steps {
		if s.kind == run {
			n++
		}
	}
	return n
}

// stepsOf pairs the layers that lie on the base image with the entries of the history that are about them.
func stepsOf(history, base []ocispecs.History, baseLayers, layers int) ([]step, error) {
	if len(history) < len(base) || layers < baseLayers {
		return nil, fmt.Errorf("%w: the history has less than the base image's", errUnsupported)
	}
	for i, h := range base {
		if !reflect.DeepEqual(h, history[i]) {
			return nil, fmt.Errorf("%w: the history does not begin with the base image's", errUnsupported)
		}
	}
	var steps []step
	for i, h := range history[len(base):] {
		if h.EmptyLayer {
			continue
		}
		s := step{text: h.CreatedBy, entry: len(base) + i}
		switch word, _, _ := strings.Cut(h.CreatedBy, " "); word {
		case "RUN":
			s.kind = run
		case "WORKDIR":
			s.kind = workdir
		}
		steps = append(steps, s)
	}
	if len(steps) != layers-baseLayers {
		return nil, fmt.Errorf("%w: the history has %d layers more than the base image, there are %d", errUnsupported, len(steps), layers-baseLayers)
	}
	return steps, nil
}

// unitsOf tells which layers may become one. A WORKDIR between two RUNs does not keep them apart.
func unitsOf(steps []step, baseLayers int, squash Squash) (units []unit) {
	for i := 0; i < len(steps); {
		end := i + 1
		switch {
		case squash == SquashStage:
			end = len(steps)
		case squash == SquashRuns && steps[i].kind == run:
			for j := end; j < len(steps) && steps[j].kind != other; j++ {
				if steps[j].kind == run {
					end = j + 1
				}
			}
		}
		units = append(units, unit{baseLayers + i, baseLayers + end - 1, steps[i:end]})
		i = end
	}
	return units
}
