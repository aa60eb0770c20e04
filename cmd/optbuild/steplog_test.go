package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
)

func logged(d digest.Digest, data string) *client.SolveStatus {
	return &client.SolveStatus{Logs: []*client.VertexLog{{Vertex: d, Data: []byte(data)}}}
}

func completed(d digest.Digest, err string) *client.SolveStatus {
	now := time.Unix(1, 0)
	return &client.SolveStatus{Vertexes: []*client.Vertex{{Digest: d, Completed: &now, Error: err, Name: "RUN " + string(d)}}}
}

func printed(t *testing.T, l *shownLog, lines int, dir string) string {
	t.Helper()
	if l == nil {
		t.Fatal("no log")
	}
	var b bytes.Buffer
	l.print(&b, lines)
	return strings.ReplaceAll(b.String(), dir, "DIR")
}

func TestRecorder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	r := newRecorder(dir)
	defer r.close()
	r.observe(logged("good", "fine\n"))
	r.observe(logged("bad", "one\ntw"))
	r.observe(logged("bad", "o\n 10%\r 50%\rthree\r\n\x1b[31mfour"))
	r.observe(completed("good", ""))
	r.observe(completed("bad", "exit code: 1"))
	r.observe(logged("cancelled", "x"))
	r.observe(completed("cancelled", "exit code: 137: context canceled"))

	if l := r.logOf("good"); l != nil {
		t.Errorf("a step that succeeded is remembered: %q", l.tail)
	}
	got := printed(t, r.logOf("bad"), 2, dir)
	want := "log of the step, the last 2 of 4 lines (all of it: DIR/1.log):\n  three\n  \x1b[31mfour\n\x1b[0m"
	if got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	got = printed(t, r.logOf(""), 40, dir) // the step that failed, not the one that was cancelled
	want = "log of the step (all of it: DIR/2.log):\n  one\n  two\n  three\n  \x1b[31mfour\n\x1b[0m"
	if got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if good, bad := r.nameOf("good"), r.nameOf("bad"); good != "" || bad != "RUN bad" {
		t.Errorf("names %q and %q", good, bad)
	}
	b, err := os.ReadFile(filepath.Join(dir, "1.log"))
	if want := "one\ntwo\n 10%\r 50%\rthree\r\n\x1b[31mfour"; err != nil || string(b) != want {
		t.Errorf("file has %q, %v; want %q", b, err, want)
	}
}

// TestRecorderSpills feeds more than is kept in memory.
func TestRecorderSpills(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	r := newRecorder(dir)
	defer r.close()
	var all bytes.Buffer
	for i := range 100_000 {
		line := fmt.Sprintf("line %d\n", i)
		all.WriteString(line)
		r.observe(logged("big", line))
		if n := len(r.steps["big"].memory); n > logMemory {
			t.Fatalf("%d bytes in memory", n)
		}
	}
	got := printed(t, r.logOf("big"), 2, dir)
	want := "log of the step, the last 2 of 100000 lines (all of it: DIR/1.log):\n  line 99998\n  line 99999\n"
	if got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	b, err := os.ReadFile(filepath.Join(dir, "1.log"))
	if err != nil || !bytes.Equal(b, all.Bytes()) {
		t.Errorf("the file has %d bytes of %d, or other ones (%v)", len(b), all.Len(), err)
	}
	if l := r.logOf("big"); len(l.tail) > logTail || !bytes.HasPrefix(l.tail, []byte("line ")) {
		t.Errorf("tail has %d bytes and starts with %q", len(l.tail), l.tail[:10])
	}
}

// TestRecorderNoDirectory: the logs directory can't be made; the end of the log is shown all the same.
func TestRecorderNoDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRecorder(filepath.Join(file, "logs"))
	for i := range 50_000 {
		r.observe(logged("big", fmt.Sprintf("line %d\n", i)))
	}
	l := r.logOf("big")
	l.err = errors.New("it broke")
	got := printed(t, l, 1, file)
	if want := "log of the step, the last 1 of 50000 lines (it could not be saved: it broke):\n  line 49999\n"; got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// TestLogFilesAreBoundedInSize uses files with holes.
func TestLogFilesAreBoundedInSize(t *testing.T) {
	dir := t.TempDir()
	for range 4 {
		f, err := newLogFile(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(logsBytes / 2); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if numbers, err := logNumbers(dir); err != nil || !slices.Equal(numbers, []int{2, 3, 4}) {
		t.Errorf("kept %v, %v", numbers, err)
	}
}

func TestLogFilesAreBounded(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"notes.txt", "x.log"} { // somebody else's
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range logsKept + 5 {
		f, err := newLogFile(dir)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	numbers, err := logNumbers(dir)
	if err != nil || len(numbers) != logsKept || numbers[0] != 6 || numbers[logsKept-1] != logsKept+5 {
		t.Errorf("kept %v, %v", numbers, err)
	}
	for _, name := range []string{"notes.txt", "x.log"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}
