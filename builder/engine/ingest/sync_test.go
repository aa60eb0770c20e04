package ingest

import (
	"context"
	"runtime"
	"testing"
	"unsafe"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// withoutSync runs f in a thread to which the kernel answers EIO where it waits for the disk. The thread ends with it.
func withoutSync(t *testing.T, f func() error) error {
	t.Helper()
	const (
		load   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		anyBit = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		answer = unix.BPF_RET | unix.BPF_K

		number, flags = 0, 16 + 2*8 // in struct seccomp_data: of the call, of openat's third argument
	)
	filter := []unix.SockFilter{
		{Code: load, K: number},
		{Code: equal, K: unix.SYS_FSYNC, Jt: 6},
		{Code: equal, K: unix.SYS_FDATASYNC, Jt: 5},
		{Code: equal, K: unix.SYS_SYNCFS, Jt: 4},
		{Code: equal, K: unix.SYS_OPENAT, Jf: 2},
		{Code: load, K: flags},
		{Code: anyBit, K: unix.O_SYNC, Jt: 1},
		{Code: answer, K: unix.SECCOMP_RET_ALLOW},
		{Code: answer, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EIO)},
	}
	done := make(chan error)
	var refused error
	go func() {
		runtime.LockOSThread()
		program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
		refused = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		if refused == nil {
			refused = unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
		}
		if refused != nil {
			done <- nil
			return
		}
		done <- f()
	}()
	err := <-done
	if refused != nil {
		t.Skipf("the kernel takes no filter of system calls: %v", refused)
	}
	return err
}

func TestNoSync(t *testing.T) {
	put := func(s content.Store) error {
		ctx := context.WithoutCancel(t.Context())
		w, err := s.Writer(ctx, content.WithRef("layer"), content.WithDescriptor(ocispecs.Descriptor{Size: 4}))
		if err != nil {
			return err
		}
		defer w.Close()
		if _, err := w.Write([]byte("text")); err != nil {
			return err
		}
		return w.Commit(ctx, 4, "")
	}
	ours, err := NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := withoutSync(t, func() error { return put(ours) }); err != nil {
		t.Errorf("a blob waits for the disk: %v", err)
	}
	if err := withoutSync(t, func() error { return put(theirs) }); err == nil {
		t.Error("containerd's blobs do not wait for the disk, or the filter lets them: is this package needed?")
	}
}
