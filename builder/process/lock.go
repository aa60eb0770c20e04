package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// holder is the content of the lock file: the engine that holds, or held last, the lock on the state directory.
type holder struct {
	PID int `json:"pid"` // in the pid namespace of its starter
	// Start is the process's start time in clock ticks since boot, which tells it from a later process of the same number.
	Start uint64 `json:"start"`
	// Strays is set for an engine whose steps survive it when it is killed: one without a pid namespace of its own.
	Strays bool `json:"strays,omitempty"`
	// UserNS identifies the engine's user namespace, if it has one of its own.
	UserNS uint64 `json:"userns,omitempty"`
}

// tryLock takes the lock on the state directory; nil means that somebody else has it. The lock belongs to the open file: who
// inherits the descriptor has it, too, and it is free when the last of them has closed it.
func (d Dir) tryLock() (*os.File, error) {
	f, err := os.OpenFile(d.file(lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, &DirError{Path: d.path, Err: err}
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, nil
	}
	return nil, &DirError{Path: d.path, Err: fmt.Errorf("lock: %w", err)}
}

func (d Dir) readHolder() (h holder) {
	if b, err := os.ReadFile(d.file(lockName)); err == nil {
		_ = json.Unmarshal(b, &h) // an unreadable one is as good as none
	}
	return h
}

func writeHolder(lock *os.File, h holder) error {
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if err := lock.Truncate(0); err != nil {
		return err
	}
	_, err = lock.WriteAt(append(b, '\n'), 0)
	return err
}

// awaitEnd returns when the engine that held the lock before us is gone with all of its namespaces. A process that ends
// releases its locks before the kernel kills the rest of its pid namespace, so that holding the lock is not enough.
func (h holder) awaitEnd(ctx context.Context, wait time.Duration) error {
	if h.PID == 0 || startTime(h.PID) != h.Start {
		return nil
	}
	fd, err := unix.PidfdOpen(h.PID, 0)
	if err != nil {
		return nil // gone, or a kernel older than 5.3
	}
	defer unix.Close(fd)
	if startTime(h.PID) != h.Start {
		return nil
	}
	for end := time.Now().Add(wait); time.Now().Before(end); {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if pollPidfd(fd, 100*time.Millisecond) {
			return nil
		}
	}
	return fmt.Errorf("%w: the last engine (process %d) has not ended yet", ErrBusy, h.PID)
}

// pollPidfd reports whether the process ended within the given time.
func pollPidfd(fd int, d time.Duration) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, int(d.Milliseconds()))
	return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
}

// startTime returns when a process was started, in clock ticks since boot; 0 when there is no such process.
func startTime(pid int) uint64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	st, err := parseStat(string(b))
	if err != nil {
		return 0
	}
	return st.start
}

// userNS returns the identity of a process's user namespace; 0 when it can't be found out.
func userNS(pid int) uint64 {
	fi, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/ns/user")
	if err != nil {
		return 0
	}
	return fi.Sys().(*syscall.Stat_t).Ino
}
