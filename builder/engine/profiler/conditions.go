package profiler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/go-runc"
	"github.com/moby/buildkit/executor"
	"github.com/prometheus/procfs"

	"github.com/optbuild/optbuild/builder/profile"
)

func newTeller(w io.Writer) func(profile.Event) error {
	if w == nil {
		w = io.Discard
	}
	e := json.NewEncoder(w)
	return func(event profile.Event) error { return e.Encode(event) }
}

func parseConditions(args []string) (c profile.Conditions, err error) {
	if len(args) != 1 {
		return c, errors.New("a marked process has conditions for its only argument")
	}
	if err := json.Unmarshal([]byte(args[0]), &c); err != nil {
		return c, fmt.Errorf("read conditions: %w", err)
	}
	return c, nil
}

// lookTime is between two looks at whether a condition holds.
const lookTime = 50 * time.Millisecond

// look watches for conditions until ctx ends; ended returns some time after that. Each is told once.
func (e *watchingExecutor) look(ctx context.Context, c *container, conditions profile.Conditions) (_ <-chan profile.Event, ended func()) {
	events := make(chan profile.Event)
	var looking sync.WaitGroup
	tell := func(event profile.Event) {
		select {
		case events <- event:
		case <-ctx.Done():
		}
	}
	if conditions.Port > 0 {
		looking.Go(func() {
			refused, err := e.waitForPort(ctx, c, conditions.Port)
			switch {
			case err != nil: // it has ended before
			case refused != "":
				tell(profile.Event{Refused: refused})
			default:
				tell(profile.Event{Held: fmt.Sprintf("port %d", conditions.Port)})
			}
		})
	}
	if conditions.Health != nil {
		looking.Go(func() {
			if e.waitForHealth(ctx, c, *conditions.Health) == nil {
				tell(profile.Event{Held: "healthy"})
			}
		})
	}
	return events, looking.Wait
}

// waitForPort returns when the program, or another one in its network, listens on a TCP port.
func (e *watchingExecutor) waitForPort(ctx context.Context, c *container, port int) (refused string, err error) {
	pid, err := e.pid(ctx, c.id)
	if err != nil {
		return "", err
	}
	if c.ports[port] && sameNetwork(pid) {
		return fmt.Sprintf("something else listens on port %d of this machine, whose network the program has", port), nil
	}
	for {
		if listening(pid)[port] {
			return "", nil
		}
		if err := wait(ctx, lookTime); err != nil {
			return "", err
		}
	}
}

// pid asks the runtime for the process id of a container's first process; that takes until it runs.
func (e *watchingExecutor) pid(ctx context.Context, id string) (string, error) {
	r := runc.Runc{Command: e.p.runtime}
	for {
		state, err := r.State(ctx, id)
		if err == nil && state.Status == "running" && state.Pid > 0 {
			return strconv.Itoa(state.Pid), nil
		}
		if err := wait(ctx, lookTime); err != nil {
			return "", err
		}
	}
}

// listening returns the TCP ports that are listened on in the network of a process.
func listening(pid string) map[int]bool {
	ports := map[int]bool{}
	proc, err := procfs.NewFS(filepath.Join("/proc", pid))
	if err != nil {
		return ports
	}
	const listens = 0x0a // TCP_LISTEN
	//lint:ignore SA1019 what it is deprecated for asks the kernel about the network of the thread that asks
	for _, read := range []func() (procfs.NetTCP, error){proc.NetTCP, proc.NetTCP6} {
		sockets, err := read()
		if err != nil {
			continue // there may be no IPv6
		}
		for _, s := range sockets {
			if s.St == listens {
				ports[int(s.LocalPort)] = true
			}
		}
	}
	return ports
}

func sameNetwork(pid string) bool {
	theirs, err := os.Readlink(filepath.Join("/proc", pid, "ns/net"))
	ours, oursErr := os.Readlink("/proc/self/ns/net")
	return err == nil && oursErr == nil && theirs == ours
}

// healthTime is between two runs of a health check: docker's 30 seconds are for programs that run for days.
const healthTime = 500 * time.Millisecond

// waitForHealth runs a command in the container until it succeeds.
func (e *watchingExecutor) waitForHealth(ctx context.Context, c *container, h profile.Health) error {
	for {
		process := executor.ProcessInfo{Meta: c.program.Meta}
		process.Meta.Args = h.Args
		once, cancel := context.WithTimeout(ctx, h.Timeout)
		err := e.Executor.Exec(once, c.id, process)
		cancel()
		if err == nil {
			return nil
		}
		if err := wait(ctx, healthTime); err != nil {
			return err
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
