package process

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fakeChild is an engine that answers what it is told, and does nothing else. Without an answer it keeps the pipe open.
func fakeChild(t *testing.T, answer string) *child {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "100")
	if answer != "" {
		cmd = exec.Command("true")
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("can't start a process to stand for the engine: %v", err)
	}
	c := &child{cmd: cmd, ready: r, exited: make(chan struct{})}
	go func() { _ = cmd.Wait(); close(c.exited) }()
	if answer != "" {
		_, _ = w.WriteString(answer)
		w.Close()
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-c.exited; r.Close(); w.Close() })
	return c
}

func TestAwaitReady(t *testing.T) {
	d := testDir(t)
	encode := func(r ready) string {
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	s := Shape{Kind: SubIDs}
	await := func(answer string) error {
		return d.awaitReady(t.Context(), fakeChild(t, answer), s, Options{Wait: 30 * time.Second})
	}
	if err := await(encode(ready{})); err != nil {
		t.Errorf("ready: %v", err)
	}
	if err := await(encode(ready{Error: "x", MaskedProc: true})); !errors.Is(err, errMaskedProc) {
		t.Errorf("masked /proc: %v", err)
	}
	var ne *NamespaceError
	if err := await(encode(ready{Error: "x", Op: "mount", Errno: syscall.EPERM})); !errors.As(err, &ne) || ne.Op != "mount" || !errors.Is(err, syscall.EPERM) {
		t.Errorf("refused by the kernel: %v", err)
	}
	var ee *EngineError
	if err := await(encode(ready{Error: "x", Errno: syscall.ENOSPC, Code: "c"})); !errors.As(err, &ee) || ee.Code != "c" || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the engine's own error: %v", err)
	}
	if err := os.WriteFile(d.Log(), []byte("panic: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := await("panic"); err == nil || !strings.HasSuffix(err.Error(), "the engine ended before it was ready (exit status 0); its log "+d.Log()+" ends with: panic: x") {
		t.Errorf("ended: %v", err)
	}
}

// TestHang: an engine that says nothing is killed when the time is over, or when the command is interrupted.
func TestHang(t *testing.T) {
	d := testDir(t)
	c := fakeChild(t, "")
	err := d.awaitReady(t.Context(), c, Shape{}, Options{Wait: time.Millisecond})
	if want := "the engine did not start within 1ms; it wrote no log"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	closed(t, "end of the hanging engine", c.exited)

	c = fakeChild(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.awaitReady(ctx, c, Shape{}, Options{Wait: time.Hour}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	closed(t, "end of the hanging engine", c.exited)
}
