package main

import (
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"

	"github.com/optbuild/optbuild/builder/outcome"
	"github.com/optbuild/optbuild/frontend"
	"github.com/optbuild/optbuild/frontend/explain"
)

// stepTimes notes what the vertices of a build took.
type stepTimes struct {
	mu       sync.Mutex
	vertices map[digest.Digest]*vertexTime
}

// vertexTime is what one vertex took. It may start and complete several times.
type vertexTime struct {
	name     string
	spans    map[time.Time]time.Duration // by their start
	bytes    map[string]int64            // of the layers that were pulled, by digest
	resolved bool                        // it is an image
	cached   bool
	replayed bool // nothing ran for it
}

func newStepTimes() *stepTimes { return &stepTimes{vertices: map[digest.Digest]*vertexTime{}} }

func (t *stepTimes) observe(s *client.SolveStatus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, v := range s.Vertexes {
		if v.Started == nil || v.Completed == nil || v.Error != "" {
			continue
		}
		at := t.vertex(v.Digest)
		at.spans[*v.Started] = v.Completed.Sub(*v.Started)
		at.name, at.cached = v.Name, at.cached || v.Cached // what is cached may be fetched later
	}
	for _, st := range s.Statuses {
		at := t.vertex(st.Vertex)
		if digest.Digest(st.ID).Validate() == nil {
			at.bytes[st.ID] = max(at.bytes[st.ID], st.Current)
		}
		at.resolved = at.resolved || strings.HasPrefix(st.ID, "resolve ")
		if o, ok := outcome.Parse(st); ok {
			at.replayed = o.Result == outcome.Replayed
		}
	}
}

func (t *stepTimes) vertex(d digest.Digest) *vertexTime {
	at := t.vertices[d]
	if at == nil {
		at = &vertexTime{spans: map[time.Time]time.Duration{}, bytes: map[string]int64{}}
		t.vertices[d] = at
	}
	return at
}

// took is how long a vertex was at work without failing.
func (t *stepTimes) took(d digest.Digest) (sum time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at := t.vertices[d]; at != nil && !at.cached {
		for _, span := range at.spans {
			sum += span
		}
	}
	return sum
}

// measures are the same by the steps of the Dockerfile that was built. A step that is built for several platforms is the sum of them. records, if
// there are any, tell what steps left behind.
func (t *stepTimes) measures(r *frontend.Report, records []*client.UsageInfo) map[int]explain.Measure {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := map[int]explain.Measure{}
	for d, vertex := range r.Steps {
		at := t.vertices[digest.Digest(d)]
		if at == nil || len(at.spans) == 0 || vertex.Step == 0 {
			continue
		}
		sum := m[vertex.Step]
		cached := at.cached || at.replayed || at.resolved && len(at.bytes) == 0
		if cached && sum.State == "" {
			sum.State = explain.Cached
		}
		if !cached {
			sum.State = explain.Ran
			for _, d := range at.spans {
				sum.Seconds += d.Seconds()
			}
			sum.Bytes += at.left(vertex.Record, records)
		}
		for _, n := range at.bytes {
			sum.Bytes += n
		}
		m[vertex.Step] = sum
	}
	return m
}

// left is the size of the one record that the engine made for the vertex while it ran, 0 if there are none or several. It calls the record of a
// RUN by its command, and that of other steps by their name.
func (v *vertexTime) left(description string, records []*client.UsageInfo) (n int64) {
	if description == "" {
		description = v.name
	}
	found := 0
	for _, r := range records {
		if r.Description != description {
			continue
		}
		for start, d := range v.spans {
			if !r.CreatedAt.Before(start) && !r.CreatedAt.After(start.Add(d)) {
				n = r.Size
				found++
			}
		}
	}
	if found != 1 {
		return 0
	}
	return n
}
