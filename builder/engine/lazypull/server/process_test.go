package server

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// nowhere has no blobs.
type nowhere struct{}

func (nowhere) Fetch(string, int64, int64) ([]byte, error) { return nil, os.ErrNotExist }
func (nowhere) Failed(string, string)                      {}

// TestLost: from the moment that a server is gone until that has been dealt with, who asks is told. Then there is none, and the next mount would start another.
func TestLost(t *testing.T) {
	if _, err := os.Stat("/proc/self/exe"); err != nil {
		t.Skip("there is no /proc")
	}
	dealt := make(chan error)
	var p Process
	p = Process{Source: nowhere{}, Ended: func(error) { dealt <- p.Lost(); dealt <- nil }}
	if err := p.Lost(); err != nil {
		t.Fatalf("before there is one: %v", err)
	}
	if _, err := p.running(); err != nil {
		t.Fatal(err)
	}
	if err := p.Lost(); err != nil {
		t.Fatalf("while it runs: %v", err)
	}
	if err := syscall.Kill(child(t), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ended := p.ended
	if err := <-dealt; err == nil {
		t.Error("it is not missed while its mounts are there")
	}
	<-dealt
	<-ended
	if err := p.Lost(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if _, err := p.running(); err != nil {
		t.Errorf("start another one: %v", err)
	}
	p.Close()
}

// child is the server's process id.
func child(t *testing.T) int {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended
		}
		for _, s := range strings.Fields(string(b)) {
			if name, err := os.ReadFile(filepath.Join("/proc", s, "cmdline")); err == nil && strings.HasPrefix(string(name), arg0) {
				pid, err := strconv.Atoi(s)
				if err != nil {
					t.Fatal(err)
				}
				return pid
			}
		}
	}
	t.Skip("the kernel does not list children (CONFIG_PROC_CHILDREN)")
	return 0
}
