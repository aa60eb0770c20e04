package process

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// reapOrphans collects the exit status of processes that were re-parented to us as init. Our own children have a waiter
// that is faster than two looks at the same zombie.
func reapOrphans(ctx context.Context) {
	seen := map[int]bool{}
	t := time.NewTicker(2 * time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		now := map[int]bool{}
		for _, pid := range zombies() {
			if seen[pid] {
				_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
			} else {
				now[pid] = true
			}
		}
		seen = now
	}
}

func zombies() (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		if st, err := parseStat(string(b)); err == nil && st.ppid == os.Getpid() && st.state == 'Z' {
			pids = append(pids, st.pid)
		}
	}
	return pids
}

// killRest ends every other process of the engine's pid namespace, and returns when they are gone: the kernel would do it,
// too, but only after it has closed our files, by which others see that we have ended.
func killRest(limit time.Duration) {
	for end := time.Now().Add(limit); time.Now().Before(end); {
		_ = unix.Kill(-1, unix.SIGKILL)
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if err == unix.ECHILD {
				return
			}
			if pid <= 0 {
				break
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// stat holds the fields of /proc/<pid>/stat that we need.
type stat struct {
	pid, ppid int
	state     byte
	start     uint64 // clock ticks since boot
}

// parseStat reads /proc/<pid>/stat; its second field, the command's name, may hold spaces and brackets.
func parseStat(s string) (st stat, err error) {
	open, end := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if open < 0 || end < open {
		return st, syscall.EINVAL
	}
	rest := strings.Fields(s[end+1:]) // from the third field on
	if len(rest) < 20 || len(rest[0]) != 1 {
		return st, syscall.EINVAL
	}
	st.state = rest[0][0]
	if st.pid, err = strconv.Atoi(strings.TrimSpace(s[:open])); err != nil {
		return st, fmt.Errorf("read pid: %w", err)
	}
	if st.ppid, err = strconv.Atoi(rest[1]); err != nil {
		return st, fmt.Errorf("read parent: %w", err)
	}
	if st.start, err = strconv.ParseUint(rest[19], 10, 64); err != nil {
		return st, fmt.Errorf("read start time: %w", err)
	}
	return st, nil
}

// strays finds what is left of the steps of an engine that had no pid namespace: processes whose root file system is a
// snapshot of this state directory. userns, unless it is 0, is the user namespace that they must be in.
func (d Dir) strays(userns uint64) (pids []int) {
	var dev uint64
	if fi, err := os.Stat(d.path); err == nil {
		dev = fi.Sys().(*syscall.Stat_t).Dev
	}
	files, _ := filepath.Glob("/proc/[0-9]*/mountinfo")
	for _, f := range files {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err != nil || pid == os.Getpid() {
			continue
		}
		b, err := os.ReadFile(f)
		if err != nil || !rootIsBelow(string(b), d.path, dev) {
			continue
		}
		if userns == 0 || userNS(pid) == userns {
			pids = append(pids, pid)
		}
	}
	return pids
}

// killStrays kills what strays finds. It is for the starter: as the owner of the old engine's user namespace it may kill
// processes with subordinate ids, which a new engine may not.
func (d Dir) killStrays(userns uint64) {
	for range 100 { // a process may fork while we look
		pids := d.strays(userns)
		if len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		time.Sleep(time.Millisecond)
	}
}

// rootIsBelow reports whether in the mount table the root directory comes from a snapshot in the given state directory: an
// overlay with a layer in one of its caches, or a bind mount of a directory there. dev is the device of the state directory.
func rootIsBelow(mountinfo, dir string, dev uint64) bool {
	dir = escapeMount(dir)
	for line := range strings.Lines(mountinfo) {
		// 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue (proc_pid_mountinfo(5))
		front, back, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		f, b := strings.Fields(front), strings.Fields(back)
		if !ok || len(f) < 6 || len(b) < 3 || f[4] != "/" {
			continue
		}
		for _, cache := range []string{cacheName, singleName} {
			if strings.Contains(b[2], "="+dir+"/"+cache+"/") || strings.Contains(b[2], ":"+dir+"/"+cache+"/") {
				return true
			}
			// The root of a bind mount is named from the root of its file system, which may be mounted anywhere above us.
			root, _, found := strings.Cut(f[3], "/"+cache+"/runc-")
			if found && root != "" && strings.HasSuffix(dir, root) && f[2] == fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)) {
				return true
			}
		}
	}
	return false
}

var mountEscapes = strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`)

func escapeMount(path string) string { return mountEscapes.Replace(path) }
