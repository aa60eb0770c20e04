package integration

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
)

// testUser is the ordinary user that the harness makes when it is root. It stays.
const testUser = "optbuild-test"

// runAsUser runs this very test binary, with the same flags, as the test user.
func runAsUser(t *testing.T, g *ground) {
	u, err := ensureUser()
	if err != nil {
		skipped.skip(t, err.Error())
	}
	self := filepath.Join(g.Dir, "bin", "integration.test")
	if err := copyFile("/proc/self/exe", self, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := copyTree(scriptDir, filepath.Join(g.Dir, "script")); err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(g.Dir, "home")
	if err := os.MkdirAll(home, 0o755); err != nil {
		t.Fatal(err)
	}
	// A mount namespace of its own, in which this user may open /dev/fuse, as on machines with udev.
	const enter = `
		mknod -m 666 "$1/fuse" c 10 229 2>/dev/null && mount --bind "$1/fuse" /dev/fuse 2>/dev/null && : 2>/dev/null <>/dev/fuse || umount /dev/fuse 2>/dev/null
		uid=$2 gid=$3; cd "$1"; shift 3
		exec setpriv --reuid="$uid" --regid="$gid" --init-groups --reset-env "$@"`
	args := []string{"--mount", "sh", "-c", enter, "sh", g.Dir, u.Uid, u.Gid,
		"env", "HOME=" + home, "PATH=" + os.Getenv("PATH"), "OPTBUILD_BIN=" + filepath.Join(g.Dir, "bin", "optbuild"),
		groundVariable + "=" + g.Dir, groundVariable + "_NODEBIAN=" + g.NoDebian}
	for _, name := range passedOn {
		if v, ok := os.LookupEnv(name); ok {
			args = append(args, name+"="+v)
		}
	}
	args = append(append(args, self), testFlags()...)
	var out bytes.Buffer
	c := exec.CommandContext(t.Context(), "unshare", args...)
	c.Stdout, c.Stderr = &out, &out
	err = c.Run()
	for line := range strings.Lines(out.String()) {
		if reason, ok := strings.CutPrefix(line, skipPrefix); ok {
			name, reason, _ := strings.Cut(strings.TrimSpace(reason), ": ")
			skipped.add(name, reason)
		}
	}
	if err != nil {
		t.Fatalf("as user %s: %v\n%s", testUser, err, out.String())
	}
	t.Logf("as user %s:\n%s", testUser, out.String())
}

// testFlags are the flags of this test run, narrowed to TestUser.
func testFlags() []string {
	args := []string{"-test.run=^TestUser$"}
	flag.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "test.run":
			if _, script, ok := strings.Cut(f.Value.String(), "/"); ok {
				args[0] += "/" + script
			}
		case "test.testlogfile", "test.paniconexit0", "test.coverprofile", "test.gocoverdir", "test.outputdir", "test.count":
		default:
			args = append(args, "-"+f.Name+"="+f.Value.String())
		}
	})
	return args
}

// ensureUser makes the test user, with subordinate ids.
func ensureUser() (*user.User, error) {
	for _, tool := range []string{"unshare", "setpriv", "newuidmap"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("%s is not installed", tool)
		}
	}
	u, err := user.Lookup(testUser)
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) {
		out, err := exec.Command("useradd", "--create-home", "--shell", "/usr/sbin/nologin", testUser).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("useradd %s: %w: %s", testUser, err, out)
		}
		u, err = user.Lookup(testUser)
		if err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if !strings.Contains("\n"+string(b), "\n"+testUser+":") {
			return nil, fmt.Errorf("user %s has no entry in %s", testUser, file)
		}
	}
	return u, nil
}
