package main

import (
	"context"
	"os"
	"os/exec"
)

// floorPeer is no builder: it does what no builder can do without. See integration/bench/floor.
type floorPeer struct{ *bench }

func (p *floorPeer) start(context.Context) error {
	_, err := os.Stat(p.Floor)
	return err
}

func (p *floorPeer) empty(context.Context, string) error { return nil }

func (p *floorPeer) command(j job) (*exec.Cmd, error) {
	args := []string{"-context", j.dir, "-image", j.image}
	if j.changed != "" {
		args = append(args, "-changed", j.changed)
	}
	return exec.Command(p.Floor, args...), nil
}

func (p *floorPeer) steps(job, []byte) (s Steps, err error) { return s, nil }

func (p *floorPeer) daemons() []int { return nil }
