package process

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/moby/sys/user"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

func TestMapArgs(t *testing.T) {
	ids := withSubIDs(1000, []user.SubID{{Name: "ann", SubID: 100000, Count: 65536}, {Name: "ann", SubID: 900000, Count: 10}})
	got := strings.Join(mapArgs(77, ids), " ")
	if want := "77 0 1000 1 1 100000 65536 65537 900000 10"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestParseIDMap(t *testing.T) {
	for in, want := range map[string]string{
		"         0          0 4294967295\n": "[{0 0 4294967294}] one=false", // one less: see allIDs
		"         0       2001          1\n": "[{0 0 1}] one=true",
		"0 2001 1\n1 100000 65536\n":         "[{0 0 1} {1 1 65536}] one=false",
		"":                                   "[] one=false",
	} {
		m, err := parseIDMap(in)
		if got := fmt.Sprintf("%v one=%v", m, oneIDOnly(m)); err != nil || got != want {
			t.Errorf("%q: got %s %v, want %s", in, got, err, want)
		}
	}
	if _, err := parseIDMap("0 x 1\n"); err == nil {
		t.Error("no error for a map that is none")
	}
}

func TestShapes(t *testing.T) {
	tests := []struct {
		s                          Shape
		rootless, oneID, ownUserNS bool
		flags                      uintptr
	}{
		{Shape{Kind: HostRoot}, false, false, false, unix.CLONE_NEWNS | unix.CLONE_NEWPID},
		{Shape{Kind: InsideRoot}, true, false, false, unix.CLONE_NEWNS | unix.CLONE_NEWPID},
		{Shape{Kind: InsideRoot, SingleMap: true}, true, true, false, unix.CLONE_NEWNS | unix.CLONE_NEWPID},
		{Shape{Kind: WeakRoot}, true, false, true, unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUSER},
		{Shape{Kind: SubIDs}, true, false, true, unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUSER},
		{Shape{Kind: SubIDs, NoPIDNamespace: true}, true, false, true, unix.CLONE_NEWNS | unix.CLONE_NEWUSER},
		{singleShape(5, 6, "why"), true, true, true, unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUSER},
	}
	for _, tt := range tests {
		if got := tt.s.Rootless(); got != tt.rootless {
			t.Errorf("%v: rootless %v", tt.s, got)
		}
		if got := tt.s.OneID(); got != tt.oneID {
			t.Errorf("%v: one id %v", tt.s, got)
		}
		if got := len(tt.s.notices()) > 0; got != tt.oneID {
			t.Errorf("%v: notices %v", tt.s, tt.s.notices())
		}
		if got := tt.s.ownUserNS(); got != tt.ownUserNS {
			t.Errorf("%v: user namespace of its own %v", tt.s, got)
		}
		a := tt.s.attr()
		if a.Cloneflags != tt.flags || !a.Setsid {
			t.Errorf("%v: flags %x, want %x", tt.s, a.Cloneflags, tt.flags)
		}
		// The kernel refuses "allow" in setgroups to unprivileged writers of a map, and newuidmap writes it itself.
		if want := tt.s.Kind == WeakRoot; a.GidMappingsEnableSetgroups != want {
			t.Errorf("%v: setgroups %v", tt.s, a.GidMappingsEnableSetgroups)
		}
	}
}

// TestOwnershipFilter runs the seccomp filter in the interpreter of x/net/bpf.
func TestOwnershipFilter(t *testing.T) {
	const allow, zero = unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_ERRNO
	tests := []struct {
		goarch string
		arch   uint32
		calls  map[uint32]int
	}{
		{"amd64", unix.AUDIT_ARCH_X86_64, map[uint32]int{
			92: zero, 93: zero, 94: zero, 260: zero, // chown, fchown, lchown, fchownat
			105: zero, 106: zero, 113: zero, 114: zero, 117: zero, 119: zero, 116: zero, 122: zero, 123: zero,
			0: allow, 59: allow, 90: allow, 102: allow, 118: allow, 16: allow, 182: allow, // read, execve, chmod, getuid, getresuid, ioctl
		}},
		{"amd64", unix.AUDIT_ARCH_I386, map[uint32]int{
			182: zero, 95: zero, 16: zero, 212: zero, 207: zero, 198: zero, 298: zero, 23: zero, 46: zero, 81: zero,
			213: zero, 214: zero, 203: zero, 204: zero, 208: zero, 210: zero, 206: zero, 215: zero, 216: zero,
			3: allow, 11: allow, 15: allow, 92: allow, 105: allow,
		}},
		{"amd64", unix.AUDIT_ARCH_AARCH64, map[uint32]int{92: allow, 54: allow}},
		{"arm64", unix.AUDIT_ARCH_AARCH64, map[uint32]int{
			54: zero, 55: zero, 143: zero, 144: zero, 145: zero, 146: zero, 147: zero, 149: zero, 151: zero, 152: zero, 159: zero,
			53: allow, 148: allow, 150: allow, 158: allow, 221: allow, // fchmodat, getresuid, getresgid, getgroups, execve
		}},
		{"riscv64", unix.AUDIT_ARCH_RISCV64, map[uint32]int{54: zero, 221: allow}},
	}
	for _, tt := range tests {
		var prog []bpf.Instruction
		for _, f := range ownershipFilter(tt.goarch) {
			prog = append(prog, bpf.RawInstruction{Op: f.Code, Jt: f.Jt, Jf: f.Jf, K: f.K}.Disassemble())
		}
		vm, err := bpf.NewVM(prog)
		if err != nil {
			t.Fatalf("%s: %v", tt.goarch, err)
		}
		for call, want := range tt.calls {
			data := binary.BigEndian.AppendUint32(nil, call) // the interpreter is for packets
			data = binary.BigEndian.AppendUint32(data, tt.arch)
			if got, err := vm.Run(data); err != nil || got != want {
				t.Errorf("%s, arch %x, call %d: got %x %v, want %x", tt.goarch, tt.arch, call, got, err, want)
			}
		}
	}
	if f := ownershipFilter("mips"); f != nil {
		t.Error("a filter for an architecture that we don't know")
	}
}
