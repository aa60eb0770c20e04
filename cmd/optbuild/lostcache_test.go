package main

import (
	"errors"
	"testing"
	"time"

	"github.com/moby/buildkit/client"

	"github.com/optbuild/optbuild/cache/remote"
)

// TestLostCache: a cache that can't be read is found in the errors of all steps: the build may end with that of another one.
func TestLostCache(t *testing.T) {
	now := time.Now()
	gone := "sha256:1 " + remote.CantRead + " r/cache: not found"
	canceled := errors.New("lease 1: not found")
	for _, c := range []struct {
		name  string
		steps []string // their errors
		line  string   // of one of them
		err   error
		want  string
	}{
		{"a step's", []string{"", gone, "other"}, "", canceled, gone},
		{"a step's line", []string{"input/output error"}, gone, canceled, gone},
		{"the build's", nil, "", errors.New(gone), gone},
		{"none", []string{"exit code: 1"}, "sha256:1 1 MB / 2 MB", canceled, ""},
	} {
		rec := newRecorder(t.TempDir())
		rec.observe(&client.SolveStatus{Statuses: []*client.VertexStatus{{ID: c.line}}})
		for _, text := range c.steps {
			rec.observe(&client.SolveStatus{Vertexes: []*client.Vertex{{Completed: &now, Error: text}}})
		}
		err := lostCache(c.err, rec)
		var lost *lostCacheError
		got := ""
		if errors.As(err, &lost) {
			got = lost.layer
		}
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %q of %v, want %q", c.name, got, err, c.want)
		}
	}
}
