package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
)

// entry is a finished case: a line of the journal.
type entry struct {
	Case     string    `json:"case"`
	Scenario string    `json:"scenario,omitempty"`
	Workload string    `json:"workload,omitempty"`
	What     string    `json:"what,omitempty"`
	Time     time.Time `json:"time"`
	Load     float64   `json:"load"`              // of the machine in the minute before the case
	Binaries string    `json:"binaries"`          // digest of those that were measured
	Settings string    `json:"settings"`          // runs, sides, user
	Results  []Result  `json:"results,omitempty"` // ratios
	Builds   []Build   `json:"builds,omitempty"`  // of cells of the matrix: every single one
}

// journal is a file of finished cases. A second bench with the same binaries and settings goes on where the first one ended.
type journal struct {
	file               *os.File // nil: nothing is written
	binaries, settings string
	done               map[string]entry
}

func openJournal(path string, o options, again bool) (*journal, error) {
	j := &journal{done: map[string]entry{}, settings: fmt.Sprintf("n=%d sides=%v user=%s app=%s", o.Runs, o.Sides, o.User, o.App)}
	if path == "" {
		return j, nil
	}
	h := sha256.New()
	for _, binary := range []string{o.Optbuild, filepath.Join(o.Stock, "buildkitd"), filepath.Join(o.Stock, "buildctl"), o.Runc, o.Floor} {
		f, err := os.Open(binary)
		if errors.Is(err, fs.ErrNotExist) { // some cases do without
			continue
		}
		if err != nil {
			return nil, err
		}
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	j.binaries = fmt.Sprintf("%x", h.Sum(nil)[:8])
	entries, err := readJournal(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if !again && e.Binaries == j.binaries && e.Settings == j.settings {
			j.done[e.Case] = e
		}
	}
	if err := makeParents(path); err != nil {
		return nil, err
	}
	if j.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644); err != nil {
		return nil, err
	}
	return j, endLine(j.file)
}

// endLine ends the last line of a file, if whoever wrote it was killed meanwhile.
func endLine(f *os.File) error {
	i, err := f.Stat()
	if err != nil || i.Size() == 0 {
		return err
	}
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, i.Size()-1); err != nil || last[0] == '\n' {
		return err
	}
	_, err = f.WriteString("\n")
	return err
}

// readJournal returns the cases in a file, of each the last. Lines that can't be read, as a killed bench leaves them, are none.
func readJournal(path string) ([]entry, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var entries []entry
	place := map[string]int{}
	for line := range bytes.Lines(text) {
		var e entry
		if json.Unmarshal(line, &e) != nil || e.Case == "" {
			continue
		}
		i, ok := place[e.Case]
		if !ok {
			place[e.Case] = len(entries)
			entries = append(entries, e)
			continue
		}
		entries[i] = e
	}
	return entries, nil
}

func (j *journal) find(name string) (entry, bool) {
	e, ok := j.done[name]
	return e, ok
}

// add notes a case and returns it as it was noted.
func (j *journal) add(e entry) (entry, error) {
	e.Binaries, e.Settings = j.binaries, j.settings
	if j.file == nil {
		return e, nil
	}
	line, err := json.Marshal(e)
	if err != nil {
		return e, err
	}
	_, err = j.file.Write(append(line, '\n'))
	return e, err
}

func (j *journal) close() {
	if j.file != nil {
		_ = j.file.Close()
	}
}

// print says what a case has come to, for those who wait.
func (e entry) print(w io.Writer, kept bool) {
	if kept {
		fmt.Fprintf(w, "%s: measured before, %s\n", e.Case, e.Time.Format(time.DateTime))
	}
	if e.Builds == nil {
		for _, r := range e.Results {
			fmt.Fprintf(w, "  %s\n", r)
		}
		return
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "side\tratio\t95 %\t")
	for _, c := range figureColumns {
		fmt.Fprintf(t, "%s\t", c.name)
	}
	fmt.Fprint(t, "\n")
	for _, side := range sidesOf(e.Builds) {
		ratio, interval := "", ""
		for _, r := range e.Results {
			if r.Against == side && r.Case == e.Case+", time" {
				ratio, interval = fmt.Sprintf("%.2f", r.Ratio), strings.TrimSpace(r.interval()+" "+r.claim())
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t", side, ratio, interval)
		for _, c := range figureColumns {
			fmt.Fprintf(t, "%s\t", figure(median(valuesOf(e.Builds, side, c.of))))
		}
		fmt.Fprint(t, "\n")
	}
	t.Flush()
}

// load is that of the machine in the last minute; 0 where it is not known.
func load() (average float64) {
	text, _ := os.ReadFile("/proc/loadavg")
	_, _ = fmt.Sscan(string(text), &average)
	return average
}
