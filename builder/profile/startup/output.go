package startup

import (
	"bytes"
	"io"
	"regexp"
	"sync"
)

// output is what a program prints: passed on, matched line by line, and its end kept.
type output struct {
	to      io.Writer // may be nil
	pattern *regexp.Regexp
	matched chan struct{} // closed when a line has matched

	mu    sync.Mutex
	done  bool // it has matched
	lines []string
}

// Bounds of what is kept.
const (
	keptLines = 20
	lineBytes = 64 << 10 // of a line; the rest is matched as another one
)

func newOutput(to io.Writer, pattern *regexp.Regexp) *output {
	return &output{to: to, pattern: pattern, matched: make(chan struct{})}
}

// stream returns one of the program's streams: lines of two of them don't mix.
func (o *output) stream() io.WriteCloser { return &stream{output: o} }

type stream struct {
	output *output
	mu     sync.Mutex
	part   []byte // of a line that has not ended
}

func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.output.to != nil {
		_, _ = s.output.to.Write(p) // it is for people; the program goes on
	}
	for rest := p; len(rest) > 0; {
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			s.part = append(s.part, rest...)
			rest = nil
		} else {
			s.part = append(s.part, rest[:end]...)
			rest = rest[end+1:]
		}
		if end >= 0 || len(s.part) >= lineBytes {
			s.flush()
		}
	}
	// A prompt, or a line whose end comes later, may be what is waited for.
	s.output.match(s.part)
	return len(p), nil
}

func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.part) > 0 {
		s.flush()
	}
	return nil
}

func (s *stream) flush() {
	line := bytes.TrimSuffix(s.part, []byte("\r"))
	s.output.match(line)
	s.output.keep(string(line))
	s.part = s.part[:0]
}

func (o *output) match(line []byte) {
	if o.pattern == nil || len(line) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.done && o.pattern.Match(line) {
		o.done = true
		close(o.matched)
	}
}

func (o *output) keep(line string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lines = append(o.lines, line)
	if len(o.lines) > keptLines {
		o.lines = o.lines[1:]
	}
}

// tail is the end of what was printed.
func (o *output) tail() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.lines...)
}
