package export

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/docker/go-units"
)

// ReportKey is where the Report stands, as JSON in base64, in the response of a solve.
const ReportKey = "optbuild.layers"

// Report says what was done to the layers of an image, for each platform.
type Report struct {
	Images []Image `json:"images"`
}

// Image is one platform's image.
type Image struct {
	Platform string  `json:"platform"`
	Runs     int     `json:"runs"`            // layers that RUNs made
	Layers   []Layer `json:"layers"`          // what was made of them, as far as it is not what it was
	Alone    string  `json:"alone,omitempty"` // why the image was left as it is, "" if it was not
	Reused   int     `json:"reused"`          // of Layers, those that an earlier export made
}

// Layer is a layer of several steps, or of one that something was left out of.
type Layer struct {
	Steps    []string   `json:"steps"` // as the history has them
	Runs     int        `json:"runs"`
	Digest   string     `json:"digest"`
	Bytes    int64      `json:"bytes"` // compressed
	Stripped []Stripped `json:"stripped,omitempty"`
}

// Stripped is what one rule left out.
type Stripped struct {
	Rule  string `json:"rule"`
	Files int    `json:"files"`
	Bytes int64  `json:"bytes"` // not compressed
}

// ReadReport finds the report in a solve's response; nil if there is none.
func ReadReport(response map[string]string) (*Report, error) {
	text, ok := response[ReportKey]
	if !ok {
		return nil, nil
	}
	r := &Report{}
	b, err := base64.StdEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(b, r)
	}
	if err != nil {
		return nil, fmt.Errorf("read the report on layers: %w", err)
	}
	return r, nil
}

// Summary is a line on what was done, "" if there was nothing. Of several platforms it tells of the first.
func (r *Report) Summary() string {
	if r == nil {
		return ""
	}
	for _, i := range r.Images {
		if s := i.summary(); s != "" {
			return "layers: " + s
		}
	}
	return ""
}

func (i Image) summary() string {
	if i.Alone != "" {
		return "left as they are: " + i.Alone
	}
	merged, into, made := 0, 0, 0
	sums := map[string]int64{}
	for _, l := range i.Layers {
		made += l.Runs
		if len(l.Steps) > 1 {
			merged += len(l.Steps)
			into++
		}
		for _, s := range l.Stripped {
			sums[s.Rule] += s.Bytes
		}
	}
	var parts []string
	if merged > 0 {
		parts = append(parts, fmt.Sprintf("%d became %d", merged, into))
	}
	if len(sums) > 0 {
		rules := slices.SortedFunc(maps.Keys(sums), func(a, b string) int {
			if sums[a] != sums[b] {
				return int(min(max(sums[b]-sums[a], -1), 1))
			}
			return strings.Compare(a, b)
		})
		total := int64(0)
		for _, b := range sums {
			total += b
		}
		parts = append(parts, fmt.Sprintf("%s of %s left out", units.HumanSize(float64(total)), strings.Join(rules, ", ")))
	}
	return strings.Join(parts, "; ")
}
