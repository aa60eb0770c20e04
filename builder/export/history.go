package export

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/docker/go-units"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// withHistory returns the image configuration with a history that fits the new layers: of the entries of a merged layer, the last has it, the others are empty and say so.
func withHistory(config []byte, history []ocispecs.History) ([]byte, error) {
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(config, &fields); err != nil {
		return nil, fmt.Errorf("read image configuration: %w", err)
	}
	b, err := json.Marshal(history)
	if err != nil {
		return nil, err
	}
	fields["history"] = b
	return json.Marshal(fields)
}

// describe changes the entries of a unit. Times are those of the steps, which the exporter would fill in otherwise from layers that are not there any more.
func (u unit) describe(history []ocispecs.History, created []time.Time, stripped []Stripped) {
	last := len(u.steps) - 1
	for i, s := range u.steps {
		h := &history[s.entry]
		if h.Created == nil {
			h.Created = &created[i]
		}
		switch {
		case i < last:
			h.EmptyLayer = true
			h.Comment = join(h.Comment, "optbuild: in one layer with: "+shortened(u.steps[last].text))
		case len(u.steps) > 1:
			h.Comment = join(h.Comment, fmt.Sprintf("optbuild: one layer of %d steps", len(u.steps)))
		}
		if i == last {
			for _, st := range stripped {
				h.Comment = join(h.Comment, fmt.Sprintf("left out: %s (%s, %d files)", st.Rule, units.HumanSize(float64(st.Bytes)), st.Files))
			}
		}
	}
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// shortened is a step's text for a comment.
func shortened(text string) string {
	const most = 60 // characters
	text = strings.Join(strings.Fields(strings.TrimSuffix(text, " # buildkit")), " ")
	if r := []rune(text); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return text
}
