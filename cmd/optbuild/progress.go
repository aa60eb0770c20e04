package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/containerd/console"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/opencontainers/go-digest"

	"github.com/optbuild/optbuild/frontend/diagnose"
)

// display shows the progress of a build or a transfer on stderr, with BuildKit's own display.
type display struct {
	in       chan *client.SolveStatus
	done     chan struct{}
	mode     progressui.DisplayMode
	warnings []client.VertexWarning // valid after done
}

// newDisplay starts a display. rec, if there is one, sees everything that is shown.
func newDisplay(mode progressui.DisplayMode, rec *recorder, o ...progressui.DisplayOpt) (*display, error) {
	out := &displayFile{File: os.Stderr}
	if mode == progressui.AutoMode {
		mode = progressui.PlainMode
		if _, err := console.ConsoleFromFile(os.Stderr); err == nil {
			mode = progressui.TtyMode
		}
	}
	ui, err := progressui.NewDisplay(out, mode, o...)
	if err != nil {
		return nil, usagef("--progress %s: standard error is not a terminal", mode)
	}
	d := &display{in: make(chan *client.SolveStatus), done: make(chan struct{}), mode: mode}
	shown := make(chan *client.SolveStatus)
	outcomes := &outcomeDisplay{mode: mode, partial: map[digest.Digest]bool{}}
	go func() {
		defer close(shown)
		defer out.ended.Store(true)
		for s := range d.in {
			if rec != nil {
				rec.observe(s)
			}
			if mode != progressui.RawJSONMode {
				s = outcomes.show(cleaned(s))
			}
			shown <- s
		}
	}()
	go func() {
		defer close(d.done)
		// Not the build's context: what an interrupted build still says is shown as well.
		d.warnings, _ = ui.UpdateFrom(context.Background(), shown)
	}()
	return d, nil
}

// cleaned takes out of steps' errors what tells about the engine only.
func cleaned(s *client.SolveStatus) *client.SolveStatus {
	failed := func(v *client.Vertex) bool { return v.Error != "" }
	if !slices.ContainsFunc(s.Vertexes, failed) {
		return s
	}
	c := *s
	c.Vertexes = slices.Clone(s.Vertexes)
	for i, v := range c.Vertexes {
		if failed(v) {
			v := *v
			v.Error = diagnose.Clean(v.Error)
			c.Vertexes[i] = &v
		}
	}
	return &c
}

// statuses is the channel for BuildKit's client, which closes it.
func (d *display) statuses() chan *client.SolveStatus { return d.in }

// wait returns when everything is shown.
func (d *display) wait() { <-d.done }

// logLines is how many lines of a failed step's log an error message shows: fewer when they have been shown already.
func (d *display) logLines() int {
	switch d.mode {
	case progressui.PlainMode:
		return 10
	case progressui.RawJSONMode:
		return 0
	}
	return 40
}

// readable says that the display is one for people.
func (d *display) readable() bool {
	return d.mode != progressui.RawJSONMode && d.mode != progressui.QuietMode
}

// showWarnings prints what the frontend found questionable, after the display has ended.
func (d *display) showWarnings(detailed bool) {
	if d.readable() {
		fmt.Fprint(os.Stderr, formatWarnings(d.warnings, detailed))
	}
}

// formatWarnings says the same as docker does. A build for several platforms gives each warning several times.
func formatWarnings(all []client.VertexWarning, detailed bool) string {
	all = uniqueWarnings(all)
	if len(all) == 0 {
		return ""
	}
	var b strings.Builder
	plural, more := "s", " (use -D to expand)"
	if len(all) == 1 {
		plural = ""
	}
	if detailed {
		more = ""
	}
	fmt.Fprintf(&b, "\n %d warning%s found%s:\n", len(all), plural, more)
	for _, w := range all {
		fmt.Fprintf(&b, " - %s\n", w.Short)
		if !detailed {
			continue
		}
		for _, d := range w.Detail {
			fmt.Fprintf(&b, "   %s\n", d)
		}
		if w.URL != "" {
			fmt.Fprintf(&b, "   %s\n", w.URL)
		}
		if first, last := span(w.Range); first > 0 && w.SourceInfo != nil {
			fmt.Fprintf(&b, "%s\n", diagnose.Excerpt(w.SourceInfo.Data, first, last))
		}
	}
	return b.String()
}

func uniqueWarnings(all []client.VertexWarning) []client.VertexWarning {
	seen := map[string]bool{}
	return slices.DeleteFunc(slices.Clone(all), func(w client.VertexWarning) bool {
		key := string(w.Short)
		again := seen[key]
		seen[key] = true
		return again
	})
}

// displayFile is the terminal as BuildKit's display sees it. At its end the display prints the logs of failed steps
// between lines of dashes; the error message shows them, too, and better, so they are left out here.
type displayFile struct {
	*os.File
	ended   atomic.Bool // nothing but those logs follows the last drawing
	dropped bool
}

func (f *displayFile) Write(b []byte) (int, error) {
	if f.ended.Load() && string(b) == "------\n" {
		f.dropped = true
	}
	if f.dropped {
		return len(b), nil
	}
	return f.File.Write(b)
}
