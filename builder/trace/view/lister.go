package view

import (
	"bytes"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// lists says whether a thread is in getdents64, whose request waits for an answer from this process.
//
// overlayfs looks up each name of a merged directory itself when it lists it (xino=on: for the numbers of the inodes). Nothing of what
// it gets so reaches the program but the name and its type, so such a lookup is no observation beyond the listing. Nothing in a request says
// where it comes from; but whoever waits for its answer is in that very system call until it is given, and /proc/TID/syscall has the call's number.
//
// false: it is another call, or this can't be known.
func lists(tid uint32) bool {
	if tid == 0 || !ownThreads() {
		return false
	}
	path := "/proc/" + strconv.FormatUint(uint64(tid), 10) + "/syscall"
	for range runningTries {
		call, argument, ok := systemCall(path)
		switch {
		case !ok:
			return false
		case call >= 0:
			// In 32-bit programs this is another call's number (pivot_root, chroot), whose first argument is an address.
			return call == unix.SYS_GETDENTS64 && argument < lowestAddress
		}
		// It has sent its request, and is about to sleep.
		time.Sleep(runningWait)
	}
	return false
}

const (
	runningTries  = 40
	runningWait   = 25 * time.Microsecond
	lowestAddress = 1 << 16 // of memory that a program may have: vm.mmap_min_addr. Descriptors are smaller numbers, or it counts as another call
)

// systemCall reads the number of the call in which a thread is, and its first argument; number -1: it is running.
func systemCall(path string) (number int, argument uint64, ok bool) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, 0, false
	}
	defer unix.Close(fd)
	var buf [256]byte // "217 0x3 0x7f... ...", or "running"
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return 0, 0, false
	}
	fields := bytes.Fields(buf[:n])
	if len(fields) == 1 && string(fields[0]) == "running" {
		return -1, 0, true
	}
	if len(fields) < 2 {
		return 0, 0, false
	}
	number, err = strconv.Atoi(string(fields[0]))
	if err != nil || number < 0 {
		return 0, 0, false
	}
	argument, err = strconv.ParseUint(string(fields[1]), 0, 64)
	return number, argument, err == nil
}

// ownThreads says that /proc numbers threads as the kernel does in requests: by the pid namespace of this process, which has mounted the view.
// The numbers of another one would be those of other threads.
var ownThreads = sync.OnceValue(func() bool {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range bytes.Lines(status) {
		if ids, ok := bytes.CutPrefix(line, []byte("NSpid:")); ok {
			fields := bytes.Fields(ids) // from the namespace of /proc's mount to the process's own
			return len(fields) == 1 && string(fields[0]) == strconv.Itoa(os.Getpid())
		}
	}
	return false
})
