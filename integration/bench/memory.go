package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Samples are this far apart, and rare enough that looking takes no more than a twentieth of the time: of a step with very many processes it would take a whole processor.
const (
	sampled = 20 * time.Millisecond
	rarely  = 19
)

// watchMemory samples the memory of processes and those of their descendants that count until done is closed, and then gives its peak in bytes.
func watchMemory(pids []int, done <-chan struct{}, counts func(pid int) bool) <-chan int64 {
	peak := make(chan int64, 1)
	go func() {
		var most int64
		for {
			begin := time.Now()
			if now := memoryOf(pids, counts); now > most {
				most = now
			}
			select {
			case <-done:
				peak <- most
				return
			case <-time.After(max(sampled, rarely*time.Since(begin))):
			}
		}
	}()
	return peak
}

func memoryOf(roots []int, counts func(pid int) bool) (sum int64) {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range stats {
		if pid, ppid, ok := parents(f); ok {
			children[ppid] = append(children[ppid], pid)
		}
	}
	queue, seen := append([]int(nil), roots...), map[int]bool{}
	for len(queue) > 0 {
		pid := queue[0]
		queue = append(queue[1:], children[pid]...)
		if !seen[pid] && counts(pid) {
			sum += proportional(pid)
		}
		seen[pid] = true
	}
	return sum
}

func anyProcess(int) bool { return true }

// ownProcess tells optbuild's and BuildKit's own processes by the first word of their command line: an engine, a daemon, but not runc, nor what
// steps run, which is the same on both sides.
func ownProcess(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return false
	}
	first, _, _ := strings.Cut(string(b), "\x00")
	name := filepath.Base(first)
	return strings.HasPrefix(name, "optbuild") || strings.HasPrefix(name, "buildkitd") || strings.HasPrefix(name, "buildctl")
}

func parents(stat string) (pid, ppid int, ok bool) {
	b, err := os.ReadFile(stat)
	if err != nil {
		return 0, 0, false
	}
	s := string(b)
	end := strings.LastIndexByte(s, ')')
	if end < 0 {
		return 0, 0, false
	}
	fields := strings.Fields(s[end+1:])
	if len(fields) < 2 {
		return 0, 0, false
	}
	pid, err = strconv.Atoi(filepath.Base(filepath.Dir(stat)))
	if err != nil {
		return 0, 0, false
	}
	ppid, err = strconv.Atoi(fields[1])
	return pid, ppid, err == nil
}

// proportional is a process's PSS in bytes: its resident memory, with pages that it shares with others divided among them.
// optbuild's command and engine are one program, so that adding up RSS would count its text twice.
func proportional(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "Pss:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "kB")), 10, 64)
			if err == nil {
				return kib << 10
			}
		}
	}
	return 0
}
