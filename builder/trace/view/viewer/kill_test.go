package viewer

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestKillViewer kills the viewer while views are open, one of them with a request under way.
func TestKillViewer(t *testing.T) {
	needMounts(t)
	dir := layer(t, "view")
	asked := filepath.Join(dir, "asked")
	t.Setenv(blockVariable, asked)
	p := process(t)
	p.name = blockingName
	v := mount(t, p, dir, "view")
	f, err := os.Open(filepath.Join(dir, "view/f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	answer := make(chan error, 1)
	go func() { _, err := os.Lstat(filepath.Join(dir, "view/blocked")); answer <- err }()
	until(t, "the request", func() bool { _, err := os.Stat(asked); return err == nil })

	first := p.pid()
	if err := unix.Kill(first, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err == nil {
		t.Error("got an answer")
	}
	if _, err := f.Read(make([]byte, 1)); err == nil {
		t.Error("read from a view without a server")
	}
	seen, err := v.Close(t.Context())
	if seen != nil || !errors.Is(err, ErrEnded) || !strings.Contains(err.Error(), "signal: killed") {
		t.Errorf("got %v, %v", seen, err)
	}
	if mounted(t, dir) {
		t.Error("still mounted")
	}

	// The next one gets another viewer.
	v = mount(t, p, dir, "view")
	if p.pid() == first {
		t.Error("the viewer is the same")
	}
	if _, err := os.ReadFile(filepath.Join(dir, "view/f")); err != nil {
		t.Error(err)
	}
	if seen, err := v.Close(t.Context()); err != nil || len(seen[0]) != 2 {
		t.Errorf("got %v, %v", seen, err)
	}
}

// engine is a process that waits for a view.
type engine struct {
	*exec.Cmd
	dir    string
	viewer int // its pid; 0 when the process serves the view itself
	exited chan struct{}
}

// startEngine returns when one of the process's threads waits for an answer that does not come.
func startEngine(t *testing.T, server string) *engine {
	t.Helper()
	dir := layer(t, "view")
	asked := filepath.Join(dir, "asked")
	e := &engine{Cmd: exec.Command("/proc/self/exe"), dir: dir, exited: make(chan struct{})}
	e.Env = append(os.Environ(), engineVariable+"="+dir, blockVariable+"="+asked, serverVariable+"="+server)
	stdout, err := e.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stdout)
	line, err := lines.ReadString('\n')
	go func() {
		_, _ = e.Process.Wait()
		close(e.exited)
	}()
	t.Cleanup(func() {
		_ = e.Process.Kill()
		_ = unix.Unmount(filepath.Join(dir, "view"), unix.MNT_FORCE|unix.MNT_DETACH) // this makes an end of it in any case
		<-e.exited
	})
	if _, scanErr := fmt.Sscanf(line, "mounted %d\n", &e.viewer); err != nil || scanErr != nil {
		rest, _ := io.ReadAll(lines)
		t.Fatalf("got %q%s, %v", line, rest, err)
	}
	until(t, "the request", func() bool { _, err := os.Stat(asked); return err == nil })
	return e
}

// ended reports whether the process is gone.
func (e *engine) ended() bool {
	select {
	case <-e.exited:
		return true
	default:
		return false
	}
}

// stuck reports whether the process was killed, and has a thread that does not end.
func (e *engine) stuck() bool {
	state := func(file string) string {
		b, _ := os.ReadFile(file)
		_, after, _ := strings.Cut(string(b), "\nState:\t")
		return after[:min(1, len(after))]
	}
	leader, waits := "", false
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", e.Process.Pid))
	for _, task := range tasks {
		switch id := filepath.Base(filepath.Dir(task)); {
		case id == fmt.Sprint(e.Process.Pid) && state(task) == "Z":
			leader = "Z"
		case state(task) == "D":
			waits = true
		}
	}
	return leader == "Z" && waits || len(tasks) == 1 && waits
}

// TestKillEngine kills a process while one of its threads waits for a view. When the view is its own, it never ends, for which reason there are viewers.
func TestKillEngine(t *testing.T) {
	needMounts(t)
	t.Run("serves by itself", func(t *testing.T) {
		e := startEngine(t, "own")
		if err := e.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		until(t, "the end, or a thread that waits for ever", func() bool { return e.ended() || e.stuck() })
		if e.ended() {
			t.Log("it ended: this kernel doesn't need viewers")
		}
	})
	t.Run("has a viewer", func(t *testing.T) {
		e := startEngine(t, "viewer")
		if err := e.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		until(t, "the end of the process", e.ended)
		until(t, "the end of its viewer", func() bool { return gone(e.viewer) })
	})
	t.Run("has a viewer that is stopped", func(t *testing.T) {
		e := startEngine(t, "viewer")
		if err := unix.Kill(e.viewer, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		if err := e.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		until(t, "the end of the process", e.ended)
		until(t, "the end of its viewer", func() bool { return gone(e.viewer) })
	})
	t.Run("both killed", func(t *testing.T) {
		e := startEngine(t, "viewer")
		if err := errors.Join(unix.Kill(e.viewer, unix.SIGKILL), e.Process.Kill()); err != nil {
			t.Fatal(err)
		}
		until(t, "the end of the process", e.ended)
	})
}

// gone reports whether a process has ended. Whoever inherits it may not have collected it.
func gone(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}
