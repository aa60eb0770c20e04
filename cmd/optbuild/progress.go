package main

import (
	"context"
	"os"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
)

// display shows the progress of a build or a transfer on stderr, with BuildKit's own display.
type display struct {
	in   chan *client.SolveStatus
	done chan struct{}
}

func newDisplay(mode progressui.DisplayMode, o ...progressui.DisplayOpt) (*display, error) {
	ui, err := progressui.NewDisplay(os.Stderr, mode, o...)
	if err != nil {
		return nil, err
	}
	d := &display{in: make(chan *client.SolveStatus), done: make(chan struct{})}
	go func() {
		defer close(d.done)
		// Not the build's context: what an interrupted build still says is shown as well.
		_, _ = ui.UpdateFrom(context.Background(), d.in)
	}()
	return d, nil
}

// statuses is the channel for BuildKit's client, which closes it.
func (d *display) statuses() chan *client.SolveStatus { return d.in }

// wait returns when everything is shown.
func (d *display) wait() { <-d.done }
