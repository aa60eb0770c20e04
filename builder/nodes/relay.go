package nodes

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/optbuild/optbuild/builder/outcome"
)

// relay passes the progress of a node on, with digests of its own, below a line that says where it comes from.
type relay struct {
	in       chan *client.SolveStatus // the client closes it
	done     chan struct{}
	out      func(*client.SolveStatus)
	platform string
	address  string
	// The rest is for the goroutine until done.
	running map[digest.Digest]*client.Vertex // that have begun and not ended
	ran     bool                             // a RUN, not from the cache
	watched bool                             // one was watched or replayed
}

func newRelay(out func(*client.SolveStatus), platform, address string) *relay {
	r := &relay{in: make(chan *client.SolveStatus), done: make(chan struct{}), out: out, platform: platform, address: address, running: map[digest.Digest]*client.Vertex{}}
	r.say("on " + address)
	go func() {
		defer close(r.done)
		for s := range r.in {
			r.out(r.translate(s))
		}
	}()
	return r
}

// say shows a line between the steps.
func (r *relay) say(line string) {
	now := time.Now()
	name := "[" + r.platform + "] " + line
	r.out(&client.SolveStatus{Vertexes: []*client.Vertex{{Digest: Salt(r.address, name+now.String()), Name: name, Started: &now, Completed: &now}}})
}

// canceled is what BuildKit says of a step that was ended for a reason that is not its own.
const canceled = "context canceled"

// end is called when the client is done. A lost node is a line, and no step that failed; what it was at work on has ended, though nobody said so.
func (r *relay) end(err error) {
	<-r.done
	now := time.Now()
	rest := &client.SolveStatus{}
	for _, v := range r.running {
		v.Completed, v.Error = &now, canceled
		rest.Vertexes = append(rest.Vertexes, v)
	}
	if len(rest.Vertexes) > 0 {
		r.out(rest)
	}
	var lost *LostError
	if errors.As(err, &lost) {
		r.say("lost " + lost.Error())
	}
}

func copied(v client.Vertex) *client.Vertex { return &v }

func (r *relay) salt(d digest.Digest) digest.Digest { return Salt(r.address, d.String()) }

// salted makes the error of a step point at the vertex that was shown.
func (r *relay) salted(err error) error {
	var v *errdefs.VertexError
	if errors.As(err, &v) {
		v.Vertex.Digest = r.salt(digest.Digest(v.Vertex.Digest)).String()
	}
	return err
}

func (r *relay) translate(s *client.SolveStatus) *client.SolveStatus {
	t := &client.SolveStatus{}
	for _, v := range s.Vertexes {
		v = copied(*v)
		v.Digest = r.salt(v.Digest)
		v.Inputs = slices.Clone(v.Inputs)
		for i, d := range v.Inputs {
			v.Inputs[i] = r.salt(d)
		}
		t.Vertexes = append(t.Vertexes, v)
		delete(r.running, v.Digest)
		r.ran = r.ran || v.Completed != nil && !v.Cached && strings.Contains(v.Name, "] RUN ")
		if v.Started != nil && v.Completed == nil {
			r.running[v.Digest] = copied(*v)
		}
	}
	for _, st := range s.Statuses {
		c := *st
		c.Vertex = r.salt(st.Vertex)
		if o, ok := outcome.Parse(st); ok && o.Result != outcome.Unwatched {
			r.watched = true
		}
		t.Statuses = append(t.Statuses, &c)
	}
	for _, l := range s.Logs {
		c := *l
		c.Vertex = r.salt(l.Vertex)
		t.Logs = append(t.Logs, &c)
	}
	for _, w := range s.Warnings {
		c := *w
		c.Vertex = r.salt(w.Vertex)
		t.Warnings = append(t.Warnings, &c)
	}
	return t
}
