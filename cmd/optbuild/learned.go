package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/optbuild/optbuild/builder/export"
	"github.com/optbuild/optbuild/frontend/explain"
	"github.com/optbuild/optbuild/frontend/plan"
)

// learned is a file of the state directory: what builds found out that `optbuild explain`, which runs nothing and asks nobody, would like to know.
// What steps took the last time that they ran says what a rewrite might save; what base images are like decides what may be rewritten.
// It is worth nothing else: a damaged one counts as empty, and of two builds that end at once one may be forgotten.
type learned struct {
	Version int // 1
	Steps   []learnedStep
	Images  []learnedImage
	Layers  []learnedLayers `json:",omitempty"`
}

// learnedLayers is what the export of a stage did to its image's layers.
type learnedLayers struct {
	File, Target string // File is absolute
	Summary      string
	When         time.Time // that it was first so
}

// learnedStep is what one step took.
type learnedStep struct {
	Of      []string // keys of the user's steps that it stood for
	Seconds float64
	Bytes   int64     `json:",omitempty"`
	When    time.Time // that it ran
}

// learnedImage is a base image.
type learnedImage struct {
	Name  string // as in FROM, variables expanded
	Image plan.Image
	When  time.Time // that it was seen for the first time as it is
}

const (
	learnedName   = "learned.json"
	learnedSteps  = 1000     // of 100 bytes or so each; every build reads them
	learnedImages = 200      // of 500 bytes or so each
	learnedLast   = 200      // layers of images, of 200 bytes or so each
	learnedBytes  = 16 << 20 // a file that is larger is not ours
)

// readLearned reads the file of a state directory.
func readLearned(state string) (m learned) {
	f, err := os.Open(filepath.Join(state, learnedName))
	if err != nil {
		return m
	}
	defer f.Close()
	if json.NewDecoder(io.LimitReader(f, learnedBytes)).Decode(&m) != nil || m.Version != 1 {
		return learned{}
	}
	return m
}

func (m learned) write(state string) error {
	m.Version = 1
	slices.SortStableFunc(m.Steps, func(a, b learnedStep) int { return a.When.Compare(b.When) })
	m.Steps = m.Steps[max(0, len(m.Steps)-learnedSteps):]
	slices.SortStableFunc(m.Images, func(a, b learnedImage) int { return a.When.Compare(b.When) })
	m.Images = m.Images[max(0, len(m.Images)-learnedImages):]
	slices.SortStableFunc(m.Layers, func(a, b learnedLayers) int { return a.When.Compare(b.When) })
	m.Layers = m.Layers[max(0, len(m.Layers)-learnedLast):]
	return replaceFile(filepath.Join(state, learnedName), func(w io.Writer) error { return json.NewEncoder(w).Encode(m) })
}

// add notes what ran.
func (m *learned) add(a *explain.Account, path string, now map[int]explain.Measure, when time.Time) (changed bool) {
	keys := stepKeys(a, path)
	for _, row := range a.Last().Rows {
		took := now[row.ID]
		of := keysOf(keys, row)
		if took.State != explain.Ran || len(of) == 0 {
			continue
		}
		for _, s := range m.Steps {
			if took.Bytes == 0 && slices.Equal(s.Of, of) { // not every build asks
				took.Bytes = s.Bytes
			}
		}
		m.Steps = slices.DeleteFunc(m.Steps, func(s learnedStep) bool { return overlaps(s.Of, of) })
		m.Steps = append(m.Steps, learnedStep{of, took.Seconds, took.Bytes, when})
		changed = true
	}
	return changed
}

// addImages notes what base images are like.
func (m *learned) addImages(a *explain.Account, when time.Time) (changed bool) {
	for _, name := range slices.Sorted(maps.Keys(a.Images)) {
		img := a.Images[name]
		i := slices.IndexFunc(m.Images, func(l learnedImage) bool { return l.Name == name })
		if i >= 0 && reflect.DeepEqual(m.Images[i].Image, img) {
			continue
		}
		if i >= 0 {
			m.Images = slices.Delete(m.Images, i, i+1)
		}
		m.Images = append(m.Images, learnedImage{name, img, when})
		changed = true
	}
	return changed
}

// addLayers notes what the export did to layers, if it was one of an image.
func (m *learned) addLayers(file, target string, resp map[string]string, when time.Time) (changed bool) {
	report, err := export.ReadReport(resp)
	abs, aerr := filepath.Abs(file)
	if err != nil || report == nil || file == "" || aerr != nil {
		return false
	}
	summary := strings.TrimPrefix(report.Summary(), "layers: ")
	if m.layers(file, target) == summary {
		return false
	}
	m.Layers = slices.DeleteFunc(m.Layers, func(l learnedLayers) bool { return l.File == abs && l.Target == target })
	if summary != "" {
		m.Layers = append(m.Layers, learnedLayers{abs, target, summary, when})
	}
	return true
}

// layers is what the last export of a stage did to layers, "" if there was none, or if it did nothing.
func (m *learned) layers(file, target string) string {
	abs, err := filepath.Abs(file)
	for _, l := range m.Layers {
		if err == nil && file != "" && l.File == abs && l.Target == target {
			return l.Summary
		}
	}
	return ""
}

// images are the base images that builds saw, as facts.
func (m *learned) images() map[string]plan.Image {
	images := map[string]plan.Image{}
	for _, l := range m.Images {
		l.Image.Remembered = true
		images[l.Name] = l.Image
	}
	return images
}

// find says what the steps of the account's last version took when they last ran, alone or as a part of another one.
func (m *learned) find(a *explain.Account, path string) map[int]explain.Measure {
	keys := stepKeys(a, path)
	found := map[int]explain.Measure{}
	for _, row := range a.Last().Rows {
		var sum explain.Measure
		of := keysOf(keys, row)
		for _, s := range m.Steps {
			if overlaps(s.Of, of) {
				sum.Seconds += s.Seconds
				sum.Bytes += s.Bytes
			}
		}
		if sum != (explain.Measure{}) {
			found[row.ID] = sum
		}
	}
	return found
}

// stepKeys stand for the user's steps, by ID: a digest of the Dockerfile's path, the stage's FROM, the instruction's text, and how many
// there were of that text before.
func stepKeys(a *explain.Account, path string) map[int]string {
	if abs, err := filepath.Abs(path); path != "" && err == nil {
		path = abs
	}
	keys, seen := map[int]string{}, map[string]int{}
	from := map[int]string{}
	for _, row := range a.Versions[0].Rows {
		if row.ID == 0 {
			continue
		}
		if _, ok := from[row.Stage]; !ok {
			from[row.Stage] = row.Text
		}
		text := fmt.Sprintf("%q %q %q", path, from[row.Stage], strings.TrimSuffix(row.Text, "\n"))
		seen[text]++
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", text, seen[text]))
		keys[row.ID] = hex.EncodeToString(sum[:8])
	}
	return keys
}

func keysOf(keys map[int]string, row explain.Row) (of []string) {
	for _, id := range row.Origins() {
		if k := keys[id]; k != "" {
			of = append(of, k)
		}
	}
	slices.SortFunc(of, cmp.Compare[string])
	return of
}

func overlaps(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}
