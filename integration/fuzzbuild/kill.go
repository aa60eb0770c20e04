package fuzzbuild

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Kill builds, and kills the command, or the engine that it started, as soon as it has printed so many lines about its progress. It is
// false if the build ended before.
func (o *Optbuild) Kill(ctx context.Context, p *Project, dir, state string, events int, engine bool) (killed bool, err error) {
	r, err := o.start(ctx, p, dir, state, state+".out", how{})
	if err != nil {
		return false, err
	}
	r.progress.read(func(n int) {
		if n != events {
			return
		}
		pid := r.command.Process.Pid
		if engine {
			if pid = child(pid); pid == 0 {
				return
			}
		}
		killed = syscall.Kill(pid, syscall.SIGKILL) == nil
	})
	err = r.command.Wait()
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if !killed && err != nil && r.command.ProcessState.ExitCode() != 1 {
		return false, fmt.Errorf("optbuild build: %w\n%s", err, r.progress.text.String())
	}
	return killed, nil
}

// child is the first child of a process that we started, which has not been waited for; 0 if it has none.
func child(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	n, err := strconv.Atoi(first)
	if err != nil {
		return 0
	}
	return n
}
