package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// toldBuild is what became of the steps of one build. The state directory has the last ones, a line of JSON for each, newest first.
type toldBuild struct {
	Version    int        `json:"version"`              // 1
	Dockerfile string     `json:"dockerfile,omitempty"` // absolute; "" if it was not a local file
	Context    string     `json:"context,omitempty"`    // absolute, or a URL without its password; "" if it was a stream
	Target     string     `json:"target,omitempty"`
	Platform   string     `json:"platform,omitempty"` // as asked for
	Ended      time.Time  `json:"ended"`
	Failed     bool       `json:"failed,omitempty"`
	Cut        bool       `json:"cut,omitempty"` // there were more steps than are kept
	Steps      []toldStep `json:"steps"`
}

const (
	whyName   = "why.json"
	whyBuilds = 20
	whyBytes  = 2 << 20 // of all of them
)

// readWhy returns the last builds, newest first. What is damaged counts as not there.
func readWhy(state string) (builds []toldBuild) {
	for _, line := range whyLines(state) {
		var b toldBuild
		if json.Unmarshal(line, &b) == nil && b.Version == 1 {
			builds = append(builds, b)
		}
	}
	return builds
}

// whyLines returns the lines of the file.
func whyLines(state string) [][]byte {
	f, err := os.Open(filepath.Join(state, whyName))
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, whyBytes))
	if err != nil {
		return nil
	}
	return bytes.Split(bytes.TrimSpace(b), []byte("\n"))
}

// write puts the build before those that are known, of which the oldest go.
func (b toldBuild) write(state string) error {
	b.Version = 1
	line, err := b.line()
	if err != nil {
		return err
	}
	defer lockWhy(state)()
	size, lines := len(line)+1, [][]byte{line}
	for _, old := range whyLines(state) {
		if size += len(old) + 1; size > whyBytes || len(lines) == whyBuilds {
			break
		}
		if json.Valid(old) {
			lines = append(lines, old)
		}
	}
	return replaceFile(filepath.Join(state, whyName), func(w io.Writer) error {
		_, err := w.Write(append(bytes.Join(lines, []byte("\n")), '\n'))
		return err
	})
}

// line is the build as it is stored: with fewer steps if they need more room than there is.
func (b toldBuild) line() ([]byte, error) {
	for {
		line, err := json.Marshal(b)
		if err != nil {
			return nil, fmt.Errorf("write what became of steps: %w", err)
		}
		if len(line) < whyBytes || len(b.Steps) == 0 {
			return line, nil
		}
		b.Cut, b.Steps = true, b.Steps[:len(b.Steps)/2]
	}
}

// lockWhy keeps another build that ends from replacing the file between our reading and writing it. The lock is on the state directory itself, which nothing
// else locks; where that is not possible, one of the two is forgotten.
func lockWhy(state string) (unlock func()) {
	f, err := os.Open(state)
	if err != nil {
		return func() {}
	}
	_ = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	return func() { f.Close() }
}
