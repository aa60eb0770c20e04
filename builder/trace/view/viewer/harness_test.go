package viewer

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/builder/trace/view"
)

// The tests mount, in a mount namespace of their own, and once more as root in a user namespace. This binary also is the viewer, and, with the
// variable engineVariable, a process that is killed while it waits for a view.
const (
	modeVariable   = "OPTBUILD_VIEWER_TEST"
	modeRoot       = "root" // a private mount namespace
	modeUser       = "user" // root in a user namespace
	modeFailed     = "failed: "
	engineVariable = "OPTBUILD_VIEWER_TEST_ENGINE" // a directory with "layer" and "view"
	serverVariable = "OPTBUILD_VIEWER_TEST_SERVER" // "own" or "viewer"
	blockVariable  = "OPTBUILD_VIEWER_TEST_BLOCK"  // a file: a view says there that it was asked for "blocked", and never answers
)

func TestMain(m *testing.M) {
	switch {
	case os.Args[0] == blockingName:
		exit(run(func(d Directory, order *atomic.Uint32) (served, error) {
			return view.Mount(d.Path, d.Mountpoint, view.Options{Order: order, Silent: true, Modified: blocked})
		}))
	case os.Getenv(engineVariable) != "":
		beEngine(os.Getenv(engineVariable))
	case os.Getenv(modeVariable) != "" || os.Geteuid() != 0:
		os.Exit(m.Run())
	}
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Args[0] = os.Args[0]
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.Env = append(os.Environ(), modeVariable+"="+modeRoot)
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		os.Setenv(modeVariable, modeFailed+err.Error())
		os.Exit(m.Run())
	}
	os.Exit(c.ProcessState.ExitCode())
}

// blockingName is of a viewer that does not answer for some files.
const blockingName = "blocking-viewer"

// blocked never returns for the time of the file "blocked", which tells it from others.
func blocked(t time.Time) time.Time {
	if t.Equal(blockedTime) {
		if err := os.WriteFile(os.Getenv(blockVariable), nil, 0o600); err != nil {
			panic(err)
		}
		select {}
	}
	return t
}

var blockedTime = time.Unix(12345, 0)

// beEngine mounts a view, says so, and waits for an answer that does not come. A second thread does nothing.
func beEngine(dir string) {
	d := Directory{filepath.Join(dir, "layer"), filepath.Join(dir, "view")}
	var err error
	p := Process{name: blockingName}
	if os.Getenv(serverVariable) == "own" {
		_, err = view.Mount(d.Path, d.Mountpoint, view.Options{Modified: blocked})
	} else {
		_, err = p.Mount(d)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("mounted", p.pid())
	_, err = os.Lstat(filepath.Join(d.Mountpoint, "blocked"))
	fmt.Println("answered:", err)
	os.Exit(1)
}

// pid is the viewer's; 0 if there is none.
func (p *Process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

func needMounts(t testing.TB) {
	t.Helper()
	switch mode := os.Getenv(modeVariable); {
	case mode == "":
		t.Skip("needs root, for a mount namespace")
	case strings.HasPrefix(mode, modeFailed):
		t.Skip("no mount namespace: " + mode)
	}
	if err := view.Supported(); err != nil {
		t.Skip(err.Error())
	}
}

// TestUserNamespace runs the other tests as root in a user namespace.
func TestUserNamespace(t *testing.T) {
	needMounts(t)
	if os.Getenv(modeVariable) == modeUser {
		t.Skip("this is one")
	}
	node := filepath.Join(scratch(t), "fuse") // that everybody may open
	if err := errors.Join(unix.Mknod(node, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 229))), os.Chmod(node, 0o666)); err != nil {
		t.Skipf("make a device node: %v", err)
	}
	if err := unix.Mount(node, "/dev/fuse", "", unix.MS_BIND, ""); err != nil {
		t.Skipf("mount a /dev/fuse for everybody: %v", err)
	}
	defer unix.Unmount("/dev/fuse", unix.MNT_DETACH)
	c := exec.Command("/proc/self/exe", "-test.run=^(TestViews|TestKill)", "-test.timeout=10m", "-test.short", "-test.v")
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	c.Env = append(os.Environ(), modeVariable+"="+modeUser, "TMPDIR=/var/tmp")
	const first, count = 100000, 65536
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: first, Size: count}}
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, Credential: &syscall.Credential{}, Pdeathsig: syscall.SIGKILL,
		UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
	}
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Skipf("no user namespace: %v", err)
	}
	if err != nil {
		t.Fatalf("in a user namespace: %v\n%s", err, out.String())
	}
	t.Logf("in a user namespace:\n%s", out.String())
}

func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "optbuild-viewer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	return dir
}

// layer makes a directory with files, and mount points beside it.
func layer(t testing.TB, mountpoints ...string) (dir string) {
	t.Helper()
	dir = scratch(t)
	for _, d := range append([]string{"layer/d"}, mountpoints...) {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"f", "d/g", "blocked"} {
		if err := os.WriteFile(filepath.Join(dir, "layer", f), []byte(f), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(filepath.Join(dir, "layer/blocked"), blockedTime, blockedTime); err != nil {
		t.Fatal(err)
	}
	return dir
}

// process returns a Process that is closed when the test ends.
func process(t testing.TB) *Process {
	p := new(Process)
	t.Cleanup(p.Close)
	return p
}

// mount mounts views of a layer.
func mount(t testing.TB, p *Process, dir string, mountpoints ...string) *Views {
	t.Helper()
	var dirs []Directory
	for _, m := range mountpoints {
		dirs = append(dirs, Directory{filepath.Join(dir, "layer"), filepath.Join(dir, m)})
	}
	v, err := p.Mount(dirs...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = v.Close(context.Background()) })
	return v
}

// mounted reports whether something is mounted at or below dir.
func mounted(t testing.TB, dir string) bool {
	t.Helper()
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if strings.Contains(lines.Text(), dir) {
			return true
		}
	}
	return false
}

// until waits for a condition, which comes unless something is wrong.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not come", what)
		}
	}
}
