package process

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ignoreOwnership makes every change of owner and of user by this process and all that it starts succeed without doing
// anything: in a user namespace with a single id they could only fail, and then neither could base images be unpacked nor
// `apt-get install` run. It is a seccomp filter that answers these calls with errno 0; for the native architecture and, on
// amd64, for 32-bit programs.
func ignoreOwnership() error {
	f := ownershipFilter(runtime.GOARCH)
	if f == nil {
		return fmt.Errorf("single-id mode is not available on %s", runtime.GOARCH)
	}
	prog := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	// All threads: goroutines move between them.
	thread, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(f)
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	if thread != 0 {
		return fmt.Errorf("seccomp: thread %d has a filter of its own", thread)
	}
	return nil
}

// ownershipFilter returns the filter for an architecture, nil for one that we don't know.
func ownershipFilter(arch string) (f []unix.SockFilter) {
	for _, a := range ownershipCalls[arch] {
		f = append(f, a.filter()...)
	}
	if f == nil {
		return nil
	}
	return append(f, statement(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ALLOW))
}

// archCalls lists, for an architecture as seccomp names it, the numbers of the calls that change owners, users and groups.
type archCalls struct {
	arch  uint32
	calls []uint32
}

// The numbers are the kernel's (arch/x86/entry/syscalls/syscall_{64,32}.tbl, include/uapi/asm-generic/unistd.h).
var ownershipCalls = map[string][]archCalls{
	"amd64": {
		{unix.AUDIT_ARCH_X86_64, []uint32{
			unix.SYS_CHOWN, unix.SYS_FCHOWN, unix.SYS_LCHOWN, unix.SYS_FCHOWNAT,
			unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID, unix.SYS_SETRESUID, unix.SYS_SETRESGID,
			unix.SYS_SETGROUPS, unix.SYS_SETFSUID, unix.SYS_SETFSGID,
		}},
		{unix.AUDIT_ARCH_I386, []uint32{
			182, 95, 16, 212, 207, 198, 298, // chown, fchown, lchown; their 32-bit forms; fchownat
			23, 46, 70, 71, 164, 170, 81, 138, 139, // setuid, setgid, setreuid, setregid, setresuid, setresgid, setgroups, setfsuid, setfsgid
			213, 214, 203, 204, 208, 210, 206, 215, 216, // their 32-bit forms
		}},
	},
	"arm64":   {{unix.AUDIT_ARCH_AARCH64, genericCalls}},
	"riscv64": {{unix.AUDIT_ARCH_RISCV64, genericCalls}},
}

// genericCalls are fchownat, fchown, setuid, setgid, setreuid, setregid, setresuid, setresgid, setgroups, setfsuid, setfsgid.
var genericCalls = []uint32{54, 55, 146, 144, 145, 143, 147, 149, 159, 151, 152}

// Offsets in struct seccomp_data.
const (
	offsetNumber = 0
	offsetArch   = 4
)

// filter returns: if the architecture is ours, and the number is in the list, answer 0; else go on behind it.
func (a archCalls) filter() []unix.SockFilter {
	n := len(a.calls)
	f := []unix.SockFilter{
		statement(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offsetArch),
		jump(a.arch, 0, uint8(n+2)),
		statement(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offsetNumber),
	}
	for i, c := range a.calls {
		// A match jumps to the return; the last mismatch jumps over it.
		miss := uint8(0)
		if i == n-1 {
			miss = 1
		}
		f = append(f, jump(c, uint8(n-1-i), miss))
	}
	return append(f, statement(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ERRNO))
}

func statement(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }

func jump(k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: yes, Jf: no}
}
