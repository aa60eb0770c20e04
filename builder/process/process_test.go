package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenDir(t *testing.T) {
	base := t.TempDir()
	write := func(name, text string) string {
		dir := filepath.Join(base, name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, versionName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	file := filepath.Join(write("dir", ""), versionName)
	link := filepath.Join(base, "link")
	if err := os.Symlink(filepath.Join(base, "dir"), link); err != nil {
		t.Fatal(err)
	}
	const choose = "choose a writable state directory: optbuild --root DIR, or OPTBUILD_ROOT"
	tests := []struct{ name, path, want, remedy string }{
		{"new", filepath.Join(base, "new", "deep"), "BASE/new/deep", ""},
		{"again", filepath.Join(base, "new", "deep"), "BASE/new/deep", ""},
		{"link", link, "BASE/dir", ""},
		{"version lost in a crash", write("empty", ""), "BASE/empty", ""},
		{"newer", write("newer", `{"layout":99}`), "state directory BASE/newer: the state directory was written by a newer optbuild (layout 99, this one knows 1)",
			"use the newer optbuild, another --root, or delete the directory (only caches and local images are lost)"},
		{"not ours", write("other", "#!"), "state directory BASE/other: not a state directory of optbuild: read version.json: invalid character '#' looking for beginning of value",
			"choose another state directory (optbuild --root DIR, or OPTBUILD_ROOT), or delete this one"},
		{"file", file, "state directory BASE/dir/version.json: mkdir BASE/dir/version.json: not a directory", choose},
	}
	for _, tt := range tests {
		d, err := OpenDir(tt.path)
		got := d.Path()
		if err != nil {
			got = err.Error()
		}
		if got = strings.ReplaceAll(got, base, "BASE"); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
		if r := Remedy(err); r != tt.remedy {
			t.Errorf("%s: remedy %q, want %q", tt.name, r, tt.remedy)
		}
	}
}

func TestRemedy(t *testing.T) {
	clone := func(k Kind, errno syscall.Errno) error {
		return fmt.Errorf("build: %w", newNamespaceError(Shape{Kind: k}, "clone", &os.PathError{Op: "fork/exec", Path: "/proc/self/exe", Err: errno}))
	}
	tests := []struct {
		name  string
		files map[string]string
		err   error
		want  string // how it begins; "" means none
	}{
		{"nothing", nil, nil, ""},
		{"something else", nil, errors.New("x"), ""},
		{"limit", nil, clone(SubIDs, syscall.ENOSPC), "the kernel's limit of namespaces is used up"},
		{"limit is 0", map[string]string{"/proc/sys/user/max_user_namespaces": "0\n"}, clone(SubIDs, syscall.ENOSPC), "as root: sysctl -w user.max_user_namespaces=15000"},
		{"Debian's switch", map[string]string{"/proc/sys/kernel/unprivileged_userns_clone": "0"}, clone(SingleID, syscall.EPERM), "as root: sysctl -w kernel.unprivileged_userns_clone=1"},
		{"Debian's switch does not matter to root", map[string]string{"/proc/sys/kernel/unprivileged_userns_clone": "0"}, clone(HostRoot, syscall.EPERM), "a seccomp or LSM policy"},
		{"apparmor", map[string]string{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"}, clone(SubIDs, syscall.EACCES), "AppArmor forbids user namespaces to unknown programs; as root:\ncat > /etc/apparmor.d/optbuild <<'END'\nabi <abi/4.0>,"},
		{"seccomp", nil, clone(SubIDs, syscall.EPERM), "a seccomp or LSM policy forbids namespaces here"},
		{"root with few capabilities", map[string]string{"/proc/self/status": "CapEff:\t0000000000000000\n"}, clone(WeakRoot, syscall.EPERM), "root without capabilities may not map ids"},
		{"root with docker's capabilities", map[string]string{"/proc/self/status": "CapEff:\t00000000a80425fb\n"}, clone(WeakRoot, syscall.EPERM), "a seccomp or LSM policy"},
		{"chroot", nil, newNamespaceError(Shape{Kind: HostRoot}, opPrivate, syscall.EINVAL), "the root directory is not a mount point, as in a chroot: before"},
		{"read-only /run", nil, clone(HostRoot, syscall.EROFS), "mount a tmpfs on /run"},
		{"full disk", nil, &EngineError{Message: "write", Errno: syscall.ENOSPC}, "free some space"},
		{"full disk, for the command", nil, &DirError{Err: syscall.ENOSPC}, "free some space"},
		{"foreign", nil, &DirError{Err: ErrForeignDir}, "give this user a state directory of its own"},
		{"engine killed", nil, fmt.Errorf("solve: %w", &LostError{PID: 7}), "if nobody ended it, the kernel may have"},
		{"busy", nil, fmt.Errorf("%w: x", ErrBusy), "end the process named in the message"},
	}
	for _, tt := range tests {
		root := t.TempDir()
		for name, text := range tt.files {
			if err := os.MkdirAll(filepath.Dir(root+name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(root+name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got := machine{root}.remedy(tt.err)
		if !strings.HasPrefix(got, tt.want) || tt.want == "" && got != "" {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestSubIDCommand(t *testing.T) {
	for taken, want := range map[string]string{
		"":                                  "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ann",
		"bob:100000:65536\neve:165536:10\n": "usermod --add-subuids 165546-231081 --add-subgids 165546-231081 ann",
		"# comment\nbad:x:y\n":              "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ann",
	} {
		if got := SubIDCommand("ann", taken); got != want {
			t.Errorf("%q: got %s, want %s", taken, got, want)
		}
	}
}

func TestParseStat(t *testing.T) {
	const rest = " 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 220862 0 0"
	for in, want := range map[string]string{
		"42 (sh) Z 1 42 42" + rest:    "{42 1 90 220862}",
		"7 (a) b (c) S 3 0 0" + rest:  "{7 3 83 220862}",
		"7 ((sd-pam)) D 3 0 0" + rest: "{7 3 68 220862}",
	} {
		st, err := parseStat(in)
		if got := fmt.Sprint(st); err != nil || got != want {
			t.Errorf("%q: got %s %v, want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "42 (sh", "42 (sh)", "42 (sh) Z 1", "x (sh) S 1 1 1" + rest, "1 (sh) S y 1 1" + rest} {
		if st, err := parseStat(in); err == nil {
			t.Errorf("%q: got %v and no error", in, st)
		}
	}
	if startTime(os.Getpid()) == 0 || startTime(0) != 0 {
		t.Error("our own start time is not known, or that of no process is")
	}
}

func TestRootIsBelow(t *testing.T) {
	dev := unix.Mkdev(8, 1)
	for mount, want := range map[string]bool{
		"1 0 0:50 / / rw - overlay overlay rw,lowerdir=/s/cache/runc-overlayfs/snapshots/1/fs,upperdir=/x": true,
		"1 0 0:50 / / rw - overlay overlay rw,lowerdir=/l:/s/cache-single-id/runc-overlayfs/1/fs":          true,
		"1 0 0:50 / / rw - overlay overlay rw,lowerdir=/other/s/cache/runc-overlayfs/snapshots/1/fs":       false,
		"1 0 0:50 / /s/cache/rootfs rw - overlay overlay rw,upperdir=/s/cache/runc-overlayfs/1/fs":         false,
		"1 0 8:1 /s/cache/runc-native/snapshots/snapshots/3 / rw - ext4 /dev/sda1 rw":                      true,
		"1 0 8:2 /s/cache/runc-native/snapshots/snapshots/3 / rw - ext4 /dev/sda2 rw":                      false,
		"1 0 8:1 /t/cache/runc-native/snapshots/snapshots/3 / rw - ext4 /dev/sda1 rw":                      false,
		"1 0 8:1 / / rw - ext4 /dev/sda1 rw":                                                               false,
		"nonsense":                                                                                         false,
	} {
		if got := rootIsBelow("2 1 0:5 / /proc rw - proc proc rw\n"+mount+"\n", "/s", dev); got != want {
			t.Errorf("%s: %v", mount, got)
		}
	}
	if !rootIsBelow(`1 0 0:50 / / rw - overlay overlay rw,upperdir=/a\040b/cache/runc-overlayfs/1/fs`, "/a b", dev) {
		t.Error("a state directory with a space in its name is not recognised")
	}
}

func TestEngineEnv(t *testing.T) {
	d := Dir{path: "/s"}
	env := []string{"PATH=/bin", "TMPDIR=/x", "XDG_RUNTIME_DIR=/run/user/0", "USER=root", "NOTIFY_SOCKET=/n"}
	for kind, want := range map[Kind]string{
		HostRoot: "PATH=/bin TMPDIR=/s/tmp USER=root XDG_RUNTIME_DIR=/s/run",
		SubIDs:   "PATH=/bin TMPDIR=/s/tmp USER=optbuild XDG_RUNTIME_DIR=/s/run",
	} {
		got := slices.DeleteFunc(d.engineEnv(env, Shape{Kind: kind}), func(kv string) bool {
			return strings.HasPrefix(kv, "GOGC=") || strings.HasPrefix(kv, "BUILDKIT_") // tuning
		})
		slices.Sort(got)
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%s: got %s, want %s", kind, got, want)
		}
	}
}

func TestLastLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for text, want := range map[string]string{"": "", "\n\n": "", "one\n": "one", "one\ntwo\n\n": "two", strings.Repeat("x\n", 3000) + "end": "end"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := lastLine(path); got != want {
			t.Errorf("%.20q: got %q, want %q", text, got, want)
		}
	}
	if got := lastLine(path + ".none"); got != "" {
		t.Errorf("a file that is not there ends with %q", got)
	}
}
