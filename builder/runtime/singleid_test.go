package runtime

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/optbuild/optbuild/builder/runtime/standin"
)

func TestFixBundle(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.json")
	in := `{"ociVersion":"1.2.0","process":{"user":{"uid":1000,"gid":1000,"additionalGids":[5]},"args":["sh"],"cwd":"/"},` +
		`"mounts":[{"destination":"/dev/pts","type":"devpts","options":["nosuid","mode=0620","gid=5"]},{"destination":"/m","options":["uid=1","gid=2"]}]}`
	want := `{"ociVersion":"1.2.0","process":{"user":{"uid":0,"gid":0},"args":["sh"],"env":["APT_CONFIG=/dev/optbuild-apt.conf"],"cwd":"/"},` +
		`"mounts":[{"destination":"/dev/pts","type":"devpts","options":["nosuid","mode=0620"]},{"destination":"/m"},` +
		`{"destination":"/dev/optbuild-apt.conf","type":"bind","source":"/apt.conf","options":["bind","ro"]}]}`
	if err := os.WriteFile(path, []byte(in), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--log", "x", "kill", "id"}, {"--log", "x", "run", "--bundle"}} {
		if err := standin.FixBundle(args, fixSpec("/apt.conf")); err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		if b, _ := os.ReadFile(path); string(b) != in {
			t.Errorf("%v: changed the bundle", args)
		}
	}
	if err := standin.FixBundle([]string{"--log", "x", "run", "--bundle", dir, "id"}, fixSpec("/apt.conf")); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); string(b) != want {
		t.Errorf("got\n%s\nwant\n%s", b, want)
	}
	if err := standin.FixBundle([]string{"run", "--bundle", filepath.Join(dir, "none"), "id"}, fixSpec("/apt.conf")); err == nil {
		t.Error("no error for a bundle that is not there")
	}
}

func TestSingleIDLinks(t *testing.T) {
	dir := t.TempDir()
	for range 2 { // the second time they are there
		got, err := SingleID(dir, "/opt/bin/crun")
		if err != nil {
			t.Fatal(err)
		}
		if want := filepath.Join(dir, "crun.single-id"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if to, _ := os.Readlink(filepath.Join(dir, "crun")); to != "/opt/bin/crun" {
			t.Errorf("crun links to %q", to)
		}
	}
}
