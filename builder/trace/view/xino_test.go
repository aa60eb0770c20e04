package view

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestXino says that with xino=on, which overlays on views want, all names are on one device, as they are when all layers are on one
// file system, and that programs which care for that find the same as without views.
func TestXino(t *testing.T) {
	needMounts(t)
	dir := scratch(t)
	top, base := filepath.Join(dir, "top"), filepath.Join(dir, "base")
	for _, l := range []string{top, base} {
		write(t, filepath.Join(l, "both", filepath.Base(l)), "x", 0o644)
		write(t, filepath.Join(l, filepath.Base(l), "a/b/c"), "content", 0o644)
		write(t, filepath.Join(l, filepath.Base(l)+"-file"), "x", 0o644)
	}
	git := repository(t, filepath.Join(top, "repository"))
	for _, l := range []string{top, base} {
		run(t, "find", l, "-exec", "touch", "-h", "-d", "1999-12-24", "{}", "+")
	}
	script := []string{
		`find . -xdev | sort`,
		// What is written in a round has the time of the round, which may be another minute's.
		`tar --one-file-system --sort=name -cf - . | tar -tvf - | sed -e 's/.*root//' -e 's/ 20[0-9-]* [0-9:]* / now /' | sort`,
		`cp -a -x . ../copy; (cd ../copy && find . | sort); rm -r ../copy`,
		`du -x --apparent-size -a top base | sort -k2`,
		`mv top/a top2; mv base/a/b base2; mv top-file both; mv both/top both/top3; find . -xdev | sort`,
		`rm -rv --one-file-system top base both | sort`,
		`cp base2/c c; test base2/c -ef c || echo two files; test c -ef ./c && echo one file`,
	}
	if git {
		const inIt = "git -C repository -c safe.directory='*' "
		script = append([]string{inIt + "status --porcelain", inIt + "log --oneline"}, script...)
	}
	var outs [2]string
	for i, watched := range []bool{false, true} {
		g := overlay(t, []layer{{Dir: top, Watched: watched}, {Dir: base, Watched: watched}}, "xino=on")
		write(t, filepath.Join(g.Merged, "upper/f"), "x", 0o644)
		devices := map[uint64]string{}
		err := filepath.WalkDir(g.Merged, func(path string, _ os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			var st unix.Stat_t
			if err := unix.Lstat(path, &st); err != nil {
				return err
			}
			devices[st.Dev] = path
			return nil
		})
		if err != nil || len(devices) != 1 {
			t.Errorf("watched %v: devices %v, %v", watched, devices, err)
		}
		for _, s := range script {
			outs[i] += "$ " + s + "\n" + run(t, "sh", "-c", `cd "$1"; `+s, "sh", g.Merged)
		}
		numbers(t, g.Merged)
	}
	if strings.ReplaceAll(outs[0], "view", "") != strings.ReplaceAll(outs[1], "view", "") {
		t.Errorf("without views:\n%s\nwith:\n%s", outs[0], outs[1])
	}
	if !strings.Contains(outs[1], "two files\none file\n") {
		t.Errorf("got %s", outs[1])
	}
}

// numbers compares the numbers of inodes that a listing has with those of the files.
func numbers(t *testing.T, dir string) {
	t.Helper()
	for line := range strings.Lines(run(t, "find", dir, "-mindepth", "1", "-printf", "%i %p\n")) {
		number, path, _ := strings.Cut(strings.TrimSpace(line), " ")
		if got := strings.TrimSpace(run(t, "stat", "-c", "%i", path)); got != number {
			t.Errorf("%s: listed with number %s, but it is %s", path, number, got)
		}
	}
}

// repository makes a git repository, if there is a git.
func repository(t *testing.T, dir string) bool {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Log("without git")
		return false
	}
	write(t, filepath.Join(dir, "f"), "x", 0o644)
	run(t, "sh", "-c", `cd "$1" && git init -q && git add . && git -c user.name=a -c user.email=a@example.com commit -q -m first &&
		echo y > f && echo z > g`, "sh", dir)
	return true
}
