package view

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/builder/trace"
)

// modeVariable says in the environment where this test binary runs: the tests mount, and do so in namespaces of their own.
const (
	modeVariable = "OPTBUILD_VIEW_TEST"
	modeRoot     = "root" // a private mount namespace
	modeUser     = "user" // root in a user namespace
	modeFailed   = "failed: "
)

func TestMain(m *testing.M) {
	if os.Getenv(modeVariable) != "" || os.Geteuid() != 0 {
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

// needMounts skips a test where it can't mount.
func needMounts(t testing.TB) {
	t.Helper()
	switch mode := os.Getenv(modeVariable); {
	case mode == "":
		t.Skip("needs root, for a mount namespace")
	case strings.HasPrefix(mode, modeFailed):
		t.Skip("no mount namespace: " + mode)
	}
	if err := Supported(); err != nil {
		t.Skip(err.Error())
	}
}

func inUserNamespace() bool { return os.Getenv(modeVariable) == modeUser }

// TestUserNamespace runs the other tests as root in a user namespace.
func TestUserNamespace(t *testing.T) {
	needMounts(t)
	if inUserNamespace() {
		t.Skip("this is one")
	}
	const tests = "^(TestOverlay|TestPlain|TestTorture|TestXino|TestHostile|TestAdverse|TestClose|TestSupported)"
	args := []string{"-test.run=" + tests, "-test.timeout=10m", "-test.short"}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	privateDevice(t)
	c := exec.Command("/proc/self/exe", args...)
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

// privateDevice puts, in this mount namespace, a /dev/fuse that everybody may open over the one that is there.
func privateDevice(t *testing.T) {
	t.Helper()
	node := filepath.Join(scratch(t), "fuse")
	if err := unix.Mknod(node, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 229))); err != nil {
		t.Skipf("make a device node: %v", err)
	}
	if err := os.Chmod(node, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(node, "/dev/fuse", "", unix.MS_BIND, ""); err != nil {
		t.Skipf("mount a /dev/fuse for everybody: %v", err)
	}
	t.Cleanup(func() { unix.Unmount("/dev/fuse", unix.MNT_DETACH) })
}

// scratch is a directory on a real file system, where overlayfs can have its upper directory.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "optbuild-view-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Directories with odd modes are the user's who made them.
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	return dir
}

// ground is an overlay on layers, of which some are watched.
type ground struct {
	Dir    string
	Merged string
	Upper  string
	Views  []*View // from the top
}

// layer is a lower directory of an overlay.
type layer struct {
	Dir     string
	Watched bool
	Options Options
}

// overlay mounts an overlay of an empty upper directory and layers, the topmost first. Extra options may be given.
func overlay(t testing.TB, layers []layer, options ...string) *ground {
	t.Helper()
	g := &ground{Dir: scratch(t)}
	g.Merged, g.Upper = filepath.Join(g.Dir, "merged"), filepath.Join(g.Dir, "upper")
	work := filepath.Join(g.Dir, "work")
	for _, d := range []string{g.Merged, g.Upper, work} {
		mkdir(t, d, 0o755)
	}
	if err := os.Chtimes(g.Upper, time.Unix(5, 0), time.Unix(5, 0)); err != nil { // the root's is not to be compared
		t.Fatal(err)
	}
	var lowers []string
	for i, l := range layers {
		if !l.Watched {
			lowers = append(lowers, l.Dir)
			continue
		}
		at := filepath.Join(g.Dir, fmt.Sprintf("view%d", i))
		mkdir(t, at, 0o755)
		g.Views = append(g.Views, mountView(t, l.Dir, at, l.Options))
		lowers = append(lowers, at)
	}
	if inUserNamespace() {
		options = append(options, "userxattr")
	}
	options = append(options, "lowerdir="+strings.Join(lowers, ":"), "upperdir="+g.Upper, "workdir="+work, "index=off", "volatile")
	if err := unix.Mount("overlay", g.Merged, "overlay", 0, strings.Join(options, ",")); err != nil {
		t.Fatalf("mount overlay %s: %v", options, err)
	}
	t.Cleanup(func() { unix.Unmount(g.Merged, unix.MNT_DETACH) })
	return g
}

// close unmounts everything before the test ends.
func (g *ground) close(t testing.TB) {
	t.Helper()
	unix.Unmount(g.Merged, unix.MNT_DETACH)
	for _, v := range g.Views {
		closeView(t, v)
	}
}

// mountView mounts a view, which is closed when the test ends.
func mountView(t testing.TB, dir, at string, o Options) *View {
	t.Helper()
	v, err := Mount(dir, at, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return v
}

// record is what a view has seen, by path.
func record(t testing.TB, v *View) map[string]trace.What {
	t.Helper()
	seen, err := v.Seen()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]trace.What{}
	for i, s := range seen {
		if i > 0 && s.Order <= seen[i-1].Order {
			t.Errorf("%q has place %d after %d", s.Path, s.Order, seen[i-1].Order)
		}
		if _, ok := out[s.Path]; ok {
			t.Errorf("%q is there twice", s.Path)
		}
		out[s.Path] = s.What
	}
	return out
}

func mkdir(t testing.TB, path string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, path, content string, mode os.FileMode) {
	t.Helper()
	mkdir(t, filepath.Dir(path), 0o755)
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// run runs a program outside of the overlay.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// closeView closes a view, which may be closed already.
func closeView(t testing.TB, v *View) {
	t.Helper()
	if err := v.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func isReadOnly(err error) bool { return errors.Is(err, unix.EROFS) }

// hideDevice puts another file over /dev/fuse, in this mount namespace.
func hideDevice(t *testing.T, file string) {
	t.Helper()
	if err := unix.Mount(file, "/dev/fuse", "", unix.MS_BIND, ""); err != nil {
		t.Skipf("hide /dev/fuse: %v", err)
	}
	t.Cleanup(func() { unix.Unmount("/dev/fuse", unix.MNT_DETACH) })
}
