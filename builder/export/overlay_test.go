package export

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// More layers than the options of mount(2) have room for; the topmost counts.
func TestOverlayOfManyLayers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount overlayfs")
	}
	top := filepath.Join(t.TempDir(), strings.Repeat("long", 10))
	var dirs []string
	for i := range 120 {
		dir := filepath.Join(top, fmt.Sprint(i))
		write(t, dir, "each", fmt.Sprint(i))
		write(t, dir, fmt.Sprint("of", i), fmt.Sprint(i))
		dirs = append(dirs, dir)
	}
	fd, err := openOverlay(dirs, false)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		t.Skip("the kernel takes no list of directories: ", err) // before 6.5
	}
	must(t, err)
	must(t, unix.Close(fd))
	must(t, withOverlay(t.Context(), dirs, false, func(root string) error {
		for name, want := range map[string]string{"each": "0", "of0": "0", "of119": "119"} {
			if b, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(b) != want {
				t.Errorf("%s: %q, %v, want %q", name, b, err, want)
			}
		}
		if err := os.WriteFile(filepath.Join(root, "new"), nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("write: %v", err)
		}
		return nil
	}))
}

// The same in a user namespace, as for an ordinary user.
func TestOverlayInUserNamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("an ordinary user's namespace is tried by the scripts of integration")
	}
	self := exec.Command("/proc/self/exe", "-test.run=^TestOverlayOfManyLayers$", "-test.v")
	self.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	id := []syscall.SysProcIDMap{{HostID: 0, Size: 1}}
	self.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, UidMappings: id, GidMappings: id}
	out, err := self.CombinedOutput()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) {
		t.Skip("no user namespace: ", err)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// A name that the new calls do not take is mounted by the old one.
func TestOverlayOfALongName(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount overlayfs")
	}
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 40), strings.Repeat("long", 40))
	write(t, dir, "f", "f")
	if fd, err := openOverlay([]string{dir, t.TempDir()}, false); err == nil {
		must(t, unix.Close(fd))
		t.Error("the kernel takes longer names now: this tests nothing")
	}
	must(t, withOverlay(t.Context(), []string{dir}, false, func(root string) error {
		_, err := os.Stat(filepath.Join(root, "f"))
		return err
	}))
}
