package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"

	"github.com/optbuild/optbuild/cache/remote"
)

// Limits of what is kept of steps' logs.
const (
	logMemory = 256 << 10 // of one step in memory; what is more goes to a file
	logTail   = 64 << 10  // of a failed step's log, as far as it is printed
	logsKept  = 20        // files in the logs directory
	logsBytes = 256 << 20 // of older files there
)

// recorder keeps the logs of the steps that are running, so that a failed one's can be shown as a whole. Steps that
// succeed are forgotten.
type recorder struct {
	dir      string // where logs are written
	times    *stepTimes
	outcomes *stepOutcomes

	mu    sync.Mutex
	steps map[digest.Digest]*stepLog
	// failed is the last step that ended with an error of its own.
	failed digest.Digest
	names  map[digest.Digest]string // of the steps that failed
	unread string                   // the first error of a step, or line of one, that says that a cache can't be read
}

func newRecorder(dir string) *recorder {
	return &recorder{dir: dir, times: newStepTimes(), outcomes: newStepOutcomes(), steps: map[digest.Digest]*stepLog{}, names: map[digest.Digest]string{}}
}

func (r *recorder) observe(s *client.SolveStatus) {
	r.times.observe(s)
	r.outcomes.observe(s)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range s.Logs {
		step := r.steps[l.Vertex]
		if step == nil {
			step = &stepLog{}
			r.steps[l.Vertex] = step
		}
		step.write(r.dir, l.Data)
	}
	for _, st := range s.Statuses { // of a step whose error is the kernel's
		if r.unread == "" && strings.Contains(st.ID, remote.CantRead) {
			r.unread = st.ID
		}
	}
	for _, v := range s.Vertexes {
		switch {
		case v.Completed == nil:
		case v.Error == "":
			r.forget(v.Digest)
		case !strings.HasSuffix(v.Error, "context canceled"):
			r.failed, r.names[v.Digest] = v.Digest, v.Name
			if r.unread == "" && strings.Contains(v.Error, remote.CantRead) {
				r.unread = v.Error
			}
		}
	}
}

func (r *recorder) forget(d digest.Digest) {
	if step := r.steps[d]; step != nil {
		step.close()
		delete(r.steps, d)
	}
}

// close forgets everything.
func (r *recorder) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for d := range r.steps {
		r.forget(d)
	}
}

// nameOf is the name of a step that failed, "" for others.
func (r *recorder) nameOf(d digest.Digest) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.names[d]
}

// logOf returns the end of a step's log and the file that has all of it; nil if the step logged nothing. For "" it takes
// the step that was the last to fail.
func (r *recorder) logOf(d digest.Digest) *shownLog {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d == "" {
		d = r.failed
	}
	step := r.steps[d]
	if step == nil {
		return nil
	}
	s := &shownLog{tail: step.tail(), lines: step.lines()}
	s.path, s.err = step.save(r.dir)
	return s
}

// shownLog is the log of a failed step as it is shown.
type shownLog struct {
	tail  []byte
	lines int
	path  string // of the file with all of the log, "" if it could not be written:
	err   error
}

// print writes the last n lines.
func (l *shownLog) print(w io.Writer, n int) {
	lines := strings.Split(strings.TrimSuffix(string(l.tail), "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	where := "all of it: " + l.path
	if l.err != nil {
		where = fmt.Sprintf("it could not be saved: %v", l.err)
	}
	if len(lines) < l.lines {
		fmt.Fprintf(w, "log of the step, the last %d of %d lines (%s):\n", len(lines), l.lines, where)
	} else {
		fmt.Fprintf(w, "log of the step (%s):\n", where)
	}
	for _, line := range lines {
		line = strings.TrimRight(line, "\r ")
		line = line[strings.LastIndexByte(line, '\r')+1:] // what a terminal shows in the end of a line drawn several times
		fmt.Fprintln(w, strings.TrimRight("  "+line, " "))
	}
	if bytes.ContainsRune(l.tail, '\x1b') {
		fmt.Fprint(w, "\x1b[0m") // a colour that the step left switched on
	}
}

// stepLog is the log of one step.
type stepLog struct {
	memory   []byte   // the end of it
	file     *os.File // what came before, without a name; nil if there is nothing
	newlines int
	partial  bool // the last line has no newline yet
	lost     bool // the file could not be written: only the end is there
}

func (s *stepLog) write(dir string, data []byte) {
	if len(data) == 0 {
		return
	}
	s.newlines += bytes.Count(data, []byte{'\n'})
	s.partial = data[len(data)-1] != '\n'
	s.memory = append(s.memory, data...)
	if len(s.memory) <= logMemory {
		return
	}
	if !s.lost && s.spill(dir) == nil {
		s.memory = s.memory[:0]
		return
	}
	s.lost = true
	s.memory = slices.Clone(s.memory[len(s.memory)-logTail:])
}

// spill moves what is in memory to the file.
func (s *stepLog) spill(dir string) error {
	if s.file == nil {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		f, err := os.CreateTemp(dir, ".step-*")
		if err != nil {
			return err
		}
		if err := os.Remove(f.Name()); err != nil { // so that it ends with this process, however that ends
			f.Close()
			return err
		}
		s.file = f
	}
	_, err := s.file.Write(s.memory)
	return err
}

func (s *stepLog) lines() int {
	if s.partial {
		return s.newlines + 1
	}
	return s.newlines
}

// tail returns the end of the log, from the start of a line if there is one.
func (s *stepLog) tail() []byte {
	end := s.memory
	if missing := logTail - len(end); missing > 0 && s.file != nil {
		size, err := s.file.Seek(0, io.SeekEnd)
		if err == nil {
			before := make([]byte, min(int64(missing), size))
			if _, err := s.file.ReadAt(before, size-int64(len(before))); err == nil {
				end = append(before, end...)
			}
		}
	}
	if len(end) < logTail {
		return slices.Clone(end)
	}
	end = end[len(end)-logTail:]
	if i := bytes.IndexByte(end, '\n'); i >= 0 && i < len(end)-1 {
		end = end[i+1:]
	}
	return slices.Clone(end)
}

// save writes the log to a new file in dir, removes the oldest there, and returns the file's path.
func (s *stepLog) save(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	f, err := newLogFile(dir)
	if err != nil {
		return "", err
	}
	if s.lost {
		_, err = fmt.Fprintln(f, "[the start of this log could not be kept]")
	} else if s.file != nil {
		if _, err = s.file.Seek(0, io.SeekStart); err == nil {
			_, err = io.Copy(f, s.file)
		}
	}
	if err == nil {
		_, err = f.Write(s.memory)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

func (s *stepLog) close() {
	if s.file != nil {
		s.file.Close()
	}
}

// newLogFile creates the next of the numbered files in dir and removes those that are too old.
func newLogFile(dir string) (*os.File, error) {
	numbers, err := logNumbers(dir)
	if err != nil {
		return nil, err
	}
	var bytes int64
	for i, n := range slices.Backward(numbers) { // the newest first
		if fi, err := os.Stat(logPath(dir, n)); err == nil {
			bytes += fi.Size()
		}
		if len(numbers)-i >= logsKept || bytes > logsBytes {
			os.Remove(logPath(dir, n))
		}
	}
	next := 1
	if len(numbers) > 0 {
		next = numbers[len(numbers)-1] + 1
	}
	for ; ; next++ { // another command may take the number
		f, err := os.OpenFile(logPath(dir, next), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
	}
}

func logPath(dir string, n int) string { return filepath.Join(dir, strconv.Itoa(n)+".log") }

func logNumbers(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	var numbers []int
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".log"); ok {
			if n, err := strconv.Atoi(name); err == nil {
				numbers = append(numbers, n)
			}
		}
	}
	slices.Sort(numbers)
	return numbers, err
}
