package integration

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// no-leftovers: nothing of the script's engine is left: no process, no mount, no cgroup with processes. What a signal has hit a
// moment ago gets the time to go.
func noLeftovers(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 0, "no-leftovers")
	state := worldOf(ts).state
	var found []string
	for begin := time.Now(); time.Since(begin) < 20*time.Second; time.Sleep(20 * time.Millisecond) {
		if found = leftovers(state); len(found) == 0 {
			return
		}
	}
	ts.Fatalf("left over:\n%s", strings.Join(found, "\n"))
}

// leftovers lists what the engine of a state directory has left behind.
func leftovers(state string) []string {
	var found []string
	if b, err := os.ReadFile("/proc/self/mountinfo"); err != nil {
		found = append(found, err.Error())
	} else {
		for line := range strings.Lines(string(b)) {
			if strings.Contains(line, state) {
				found = append(found, "mount: "+strings.TrimSpace(line))
			}
		}
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		found = append(found, err.Error())
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != os.Getpid() {
			if why := uses(pid, state); why != "" {
				found = append(found, fmt.Sprintf("process %d: %s", pid, why))
			}
		}
	}
	return append(found, cgroups(state)...)
}

// uses tells how a process is connected with the state directory: its command line, environment, an open file, a mount in its
// namespace. Processes that we may not look at are none of our engine's.
func uses(pid int, state string) string {
	dir := fmt.Sprintf("/proc/%d/", pid)
	cmdline, _ := os.ReadFile(dir + "cmdline")
	command := string(bytes.ReplaceAll(bytes.TrimRight(cmdline, "\x00"), []byte{0}, []byte{' '}))
	for _, file := range []string{"cmdline", "environ", "mountinfo"} {
		b, _ := os.ReadFile(dir + file)
		for line := range strings.Lines(string(b)) {
			if strings.Contains(line, state) {
				return file + " of " + command
			}
		}
	}
	fds, _ := os.ReadDir(dir + "fd")
	for _, fd := range fds {
		if target, _ := os.Readlink(dir + "fd/" + fd.Name()); strings.HasPrefix(target, state+"/") {
			return "open file " + target + " of " + command
		}
	}
	return ""
}

// cgroups lists the cgroups of the state directory's steps that still hold processes. Their parent's name is derived from the
// directory's (process.Dir.CgroupParent).
func cgroups(state string) []string {
	sum := sha256.Sum256([]byte(state))
	parent := "optbuild-" + hex.EncodeToString(sum[:6])
	var found []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() || !strings.Contains(path, parent) {
			return nil
		}
		if b, _ := os.ReadFile(filepath.Join(path, "cgroup.procs")); len(b) > 0 {
			found = append(found, "cgroup: "+path)
		}
		return nil
	})
	return found
}
