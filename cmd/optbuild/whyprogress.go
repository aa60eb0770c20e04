package main

import (
	"slices"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/opencontainers/go-digest"

	"github.com/optbuild/optbuild/builder/outcome"
)

// outcomeDisplay makes outcomes readable for BuildKit's displays. They come as statuses. The tty display shows these as lines below a step, as it
// should be; the plain one puts "done" behind them ("ran: package.json changed done"), so there they become lines of the step's log. What goes
// without saying is left out.
type outcomeDisplay struct {
	mode    progressui.DisplayMode
	partial map[digest.Digest]bool // steps whose last line of log has no end yet
}

func (d *outcomeDisplay) show(s *client.SolveStatus) *client.SolveStatus {
	for _, l := range s.Logs {
		if n := len(l.Data); n > 0 {
			d.partial[l.Vertex] = l.Data[n-1] != '\n'
		}
	}
	if !slices.ContainsFunc(s.Statuses, func(st *client.VertexStatus) bool { _, ok := toldLine(st); return ok }) {
		return s
	}
	c := *s
	c.Statuses, c.Logs = nil, slices.Clone(s.Logs)
	for _, st := range s.Statuses {
		text, ok := toldLine(st)
		switch {
		case !ok:
			c.Statuses = append(c.Statuses, st)
		case text == "" || st.Completed == nil:
		case d.mode == progressui.PlainMode:
			if d.partial[st.Vertex] {
				text = "\n" + text
			}
			d.partial[st.Vertex] = false
			c.Logs = append(c.Logs, &client.VertexLog{Vertex: st.Vertex, Stream: 2, Data: []byte(text + "\n"), Timestamp: *st.Completed})
		default:
			line := *st
			line.ID = text
			c.Statuses = append(c.Statuses, &line)
		}
	}
	return &c
}

// toldLine is the line of a status that is ours.
func toldLine(st *client.VertexStatus) (text string, ok bool) {
	if platform, ok := outcome.ParseEmulated(st); ok {
		return "emulated: " + visible(platform), true
	}
	o, ok := outcome.Parse(st)
	return worthSaying(o), ok
}

// worthSaying is the line of an outcome, "" if it goes without saying: that a step ran is seen, and that this machine can't watch steps is said once,
// at the end.
func worthSaying(o outcome.Outcome) string {
	if o.Result != outcome.Replayed && (o.Reason == "" || o.Reason == outcome.FirstBuild) {
		return ""
	}
	if o.Machine {
		o.Result = outcome.Executed
	}
	return visible(o.String())
}
