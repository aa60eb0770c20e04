package request

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

func TestRemoveAbandoned(t *testing.T) {
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	name := func(ns string, pid int) string { return fmt.Sprintf(".out.optbuild-%s-%d-ABC", ns, pid) }
	dead := name(pidNamespace(), gone.Process.Pid)
	stay := []string{
		stagingName(".out.optbuild-"),                     // ours
		name(pidNamespace(), os.Getppid()),                // somebody else's who lives
		name("1", gone.Process.Pid),                       // of another pid namespace
		".other.optbuild-" + dead[len(".out.optbuild-"):], // of another destination
		".out.optbuild-notes",                             // no name of ours
		"out",
	}
	dir := t.TempDir()
	for _, n := range append(slices.Clone(stay), dead) {
		if err := os.MkdirAll(filepath.Join(dir, n, "sub"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	removeAbandoned(dir, ".out.optbuild-")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	slices.Sort(stay)
	if !slices.Equal(left, stay) {
		t.Errorf("left %q, want %q", left, stay)
	}
}
