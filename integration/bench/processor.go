package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Processor time is that of a command and of all of its descendants. A step is a child of runc, runc of the engine, and the engine of the command,
// which may end a moment before the engine: then the engine becomes this process's child, and is waited for here.

// adopt makes this process the parent of orphans among its descendants.
func adopt() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the parent of orphans: %w", err)
	}
	return nil
}

// orphansTime waits for children other than the given ones, and returns what they and their descendants used.
func orphansTime(others ...int) (used time.Duration, err error) {
	for {
		pid, err := anyChild(others)
		if pid == 0 || err != nil {
			return used, err
		}
		var u unix.Rusage
		_, err = unix.Wait4(pid, nil, 0, &u)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return used, fmt.Errorf("wait for process %d: %w", pid, err)
		}
		if err == nil {
			used += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
}

// anyChild returns a child that is not among others, 0 if there is none.
func anyChild(others []int) (int, error) {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return 0, err
	}
	for _, t := range threads {
		b, err := os.ReadFile("/proc/self/task/" + t.Name() + "/children")
		if errors.Is(err, os.ErrNotExist) {
			continue // the thread has ended
		}
		if err != nil {
			return 0, err
		}
	next:
		for word := range strings.FieldsSeq(string(b)) {
			pid, err := strconv.Atoi(word)
			if err != nil {
				return 0, err
			}
			for _, o := range others {
				if pid == o {
					continue next
				}
			}
			return pid, nil
		}
	}
	return 0, nil
}

// processorTime is what a process has used until now.
func processorTime(pid int) (time.Duration, error) {
	t, err := times(pid)
	return t[0] + t[1], err
}

// familyTime is that with what those of its descendants used that it has waited for.
func familyTime(pid int) (time.Duration, error) {
	t, err := times(pid)
	return t[0] + t[1] + t[2] + t[3], err
}

// times are a process's in user and kernel mode, and those of the descendants that it has waited for.
func times(pid int) (t [4]time.Duration, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return t, err
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 15 {
		return t, errors.New("/proc/PID/stat has too few fields")
	}
	const hertz = 100                 // USER_HZ, the same on all machines
	for i, f := range fields[11:15] { // utime, stime, cutime, cstime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return t, err
		}
		t[i] = time.Duration(n) * time.Second / hertz
	}
	return t, nil
}
