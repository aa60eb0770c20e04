package main

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestOrphansTime has a command whose child outlives it, as an engine may.
func TestOrphansTime(t *testing.T) {
	if err := adopt(); err != nil {
		t.Skip(err)
	}
	other := exec.Command("sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		other.Process.Kill()
		other.Wait()
	}()
	// The child works until its parent is gone, and some time beyond.
	const script = `p=$$; (while kill -0 $p; do :; done; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done) >/dev/null 2>&1 &`
	if err := exec.Command("sh", "-c", script).Run(); err != nil {
		t.Fatal(err)
	}
	used, err := orphansTime(other.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if used < time.Millisecond { // its loop takes tens of them
		t.Errorf("the orphan used %v", used)
	}
	if used, err = orphansTime(other.Process.Pid); used != 0 || err != nil {
		t.Errorf("without orphans: %v, %v", used, err)
	}
}

// TestFamilyTime has a child that works and is waited for.
func TestFamilyTime(t *testing.T) {
	before, err := familyTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done")
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	after, err := familyTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	// The kernel tells in hundredths of a second, rounded down.
	child := c.ProcessState.UserTime() + c.ProcessState.SystemTime()
	if got := after - before; got < child-50*time.Millisecond {
		t.Errorf("with a child that used %v, the family's time rose by %v", child, got)
	}
}
