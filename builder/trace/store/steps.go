package store

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/optbuild/optbuild/builder/atomicfile"
)

// StepRecord says what a step was made of when it ran last, to tell why it runs again. Nothing rests on it.
type StepRecord struct {
	Name   string    `json:"name"` // "RUN npm ci"
	Time   time.Time `json:"time"` // when it ran
	Fields []Field   `json:"fields"`
}

// Field is one input of a step. The names that Changes knows words for are "args", "env NAME", "arg NAME", "user", "workdir" and
// "base"; all others are their own words, such as "layer 2 (COPY . .)" and "mount cache /root/.npm". A name that comes twice counts
// twice.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Changes says in users' words what differs between two runs of a step; nil if nothing does. An earlier record that is empty means
// that there is none.
func Changes(was, is StepRecord) []string {
	if was.Name == "" && was.Time.IsZero() && len(was.Fields) == 0 {
		return []string{"first build"}
	}
	type numbered struct {
		name string
		n    int
	}
	count := func(fields []Field, each func(numbered, string)) {
		met := map[string]int{}
		for _, f := range fields {
			each(numbered{f.Name, met[f.Name]}, shorten(f.Value))
			met[f.Name]++
		}
	}
	earlier := map[numbered]string{}
	count(was.Fields, func(f numbered, value string) { earlier[f] = value })
	var changes []string
	say := func(name, what string) {
		if change := words(name) + " " + what; len(changes) == 0 || changes[len(changes)-1] != change {
			changes = append(changes, change)
		}
	}
	count(is.Fields, func(f numbered, value string) {
		switch before, ok := earlier[f]; {
		case !ok:
			say(f.name, "is new")
		case before != value:
			say(f.name, "changed")
		}
		delete(earlier, f)
	})
	count(was.Fields, func(f numbered, _ string) {
		if _, ok := earlier[f]; ok {
			say(f.name, "is gone")
		}
	})
	return changes
}

// words returns what people call a field.
func words(name string) string {
	switch name {
	case "args":
		return "command"
	case "workdir":
		return "working directory"
	case "base":
		return "base image"
	}
	if v, ok := strings.CutPrefix(name, "env "); ok {
		return "environment variable " + v
	}
	if v, ok := strings.CutPrefix(name, "arg "); ok {
		return "build arg " + v
	}
	return name
}

// longValue is how long the value of a field may be before its digest takes its place.
const longValue = 200

func shorten(value string) string {
	if len(value) <= longValue {
		return value
	}
	sum := sha256.Sum256([]byte(value))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Last returns the record of a step. The slot says which step of which build: what stays the same when the step's inputs
// change.
func (s *Store) Last(slot [32]byte) (*StepRecord, bool) {
	s.mu.Lock()
	b, err := os.ReadFile(s.slotPath("steps", slot))
	s.mu.Unlock()
	var r StepRecord
	if err != nil || json.Unmarshal(b, &r) != nil {
		return nil, false
	}
	return &r, true
}

// SetLast replaces the record of a step. Long values are kept as digests. The newest 2,000 steps are remembered.
func (s *Store) SetLast(slot [32]byte, r StepRecord) error {
	kept := r
	kept.Fields = make([]Field, len(r.Fields))
	for i, f := range r.Fields {
		kept.Fields[i] = Field{f.Name, shorten(f.Value)}
	}
	b, err := json.Marshal(kept)
	if err != nil {
		return fmt.Errorf("record step: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := atomicfile.Write(s.slotPath("steps", slot), b, 0o600); err != nil {
		return fmt.Errorf("record step: %w", err)
	}
	if s.written++; s.written >= countEvery {
		s.written = 0
		if err := keepNewest(filepath.Join(s.dir, "steps"), maxSteps); err != nil {
			return fmt.Errorf("record step: %w", err)
		}
	}
	return nil
}

// SetSkip says that the next n runs of a step are not worth watching.
func (s *Store) SetSkip(slot [32]byte, n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.setSkip(slot, n)
}

// Skip says whether this run of a step is to be left unwatched, and counts it.
func (s *Store) Skip(slot [32]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := os.ReadFile(s.slotPath("skips", slot))
	if err != nil {
		return false
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		n = 0
	}
	// A count that can't be brought down would never end.
	return s.setSkip(slot, n-1) == nil && n > 0
}

func (s *Store) setSkip(slot [32]byte, n int) error {
	path := s.slotPath("skips", slot)
	if n <= 0 {
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("forget skipped step: %w", err)
		}
		return nil
	}
	if err := atomicfile.Write(path, []byte(strconv.Itoa(n)+"\n"), 0o600); err != nil {
		return fmt.Errorf("record skipped step: %w", err)
	}
	return nil
}

func (s *Store) slotPath(kind string, slot [32]byte) string {
	return filepath.Join(s.dir, kind, hex.EncodeToString(slot[:]))
}
