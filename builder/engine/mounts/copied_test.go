package mounts

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// A mount that may be judged by times comes only to files that are the same, or younger.
func TestCopied(t *testing.T) {
	s := newDirectoryStore(t)
	old, young := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	files := func(m *machine, time time.Time, list map[string]string) {
		dir := t.TempDir()
		for p, text := range list {
			if err := errors.Join(os.WriteFile(filepath.Join(dir, p), []byte(text), 0o644), os.Chtimes(filepath.Join(dir, p), time, time)); err != nil {
				t.Fatal(err)
			}
		}
		m.copied = append(m.copied, dir)
	}
	from := newMachine(t, s)
	files(from, old, map[string]string{"a.c": "one", "b.c": "two"})
	dir := from.mount("1")
	if err := from.step(run("/obj", "/obj", true), dir, writes(filepath.Join(dir, "f"), "made")); err != nil {
		t.Fatal(err)
	}
	from.save(s)
	tests := map[string]struct {
		step   *vertex
		copied func(m *machine)
		want   string
	}{
		"the same":    {copied: func(m *machine) { files(m, old, map[string]string{"a.c": "one", "b.c": "two"}) }, want: "f=made"},
		"one is gone": {copied: func(m *machine) { files(m, old, map[string]string{"a.c": "one"}) }, want: "f=made"},
		"one differs": {copied: func(m *machine) { files(m, old, map[string]string{"a.c": "one", "b.c": "2"}) }},
		"one differs, is young": {copied: func(m *machine) {
			files(m, young, map[string]string{"b.c": "2"})
			files(m, old, map[string]string{"a.c": "one", "b.c": "two"})
		}, want: "f=made"},
		"one differs below": {copied: func(m *machine) {
			files(m, old, map[string]string{"b.c": "2"})
			files(m, old, map[string]string{"a.c": "one", "b.c": "two"})
		}},
		"one is new and old": {copied: func(m *machine) { files(m, old, map[string]string{"c.c": "three"}) }},
		"all are young":      {copied: func(m *machine) { files(m, young, map[string]string{"a.c": "1", "z.c": "2"}) }, want: "f=made"},
		"it is not known":    {copied: func(m *machine) { m.copied = nil }},
	}
	for _, what := range slices.Sorted(maps.Keys(tests)) {
		m := newMachine(t, s)
		m.copied = []string{}
		tests[what].copied(m)
		if got := m.seen(run("/obj", "/obj", true), m.mount("1")); got != tests[what].want {
			t.Errorf("%s: the step sees %q, not %q", what, got, tests[what].want)
		}
	}
	// A cache that is checked comes anyway.
	dir = from.mount("2")
	if err := from.step(run("/root/.npm", "/root/.npm", true), dir, writes(filepath.Join(dir, "f"), "made")); err != nil {
		t.Fatal(err)
	}
	from.save(s)
	m := newMachine(t, s)
	if got := m.seen(run("/root/.npm", "/root/.npm", true), m.mount("1")); got != "f=made" {
		t.Errorf("the step sees %q", got)
	}
}
