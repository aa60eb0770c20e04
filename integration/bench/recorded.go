package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// recorded is a line of the file in which results are kept in the repository: one ratio, and where it was measured.
type recorded struct {
	Date     string  `json:"date"`
	Machine  string  `json:"machine"`
	Versions string  `json:"versions"`
	Load     float64 `json:"load"`
	What     string  `json:"what,omitempty"`
	Result
}

// key is what two lines have in common that are about the same thing.
func (r Result) key() string { return r.Case + "\x00" + r.Unit + "\x00" + r.Against }

// readRecorded returns the last line of each ratio. Without a file there is nothing to compare with.
func readRecorded(path string) ([]recorded, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []recorded
	place, n := map[string]int{}, 0
	for line := range bytes.Lines(text) {
		n++
		var r recorded
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("%s:%d: not a recorded result: %w; remove the line", path, n, err)
		}
		if i, ok := place[r.key()]; ok {
			list[i] = r
			continue
		}
		place[r.key()] = len(list)
		list = append(list, r)
	}
	return list, nil
}

// addRecorded adds ratios with the day and the machine.
func addRecorded(path string, entries []entry) error {
	versions, err := versionsOf(entries)
	if err != nil {
		return err
	}
	machine := machineName()
	var lines bytes.Buffer
	for _, e := range entries {
		for _, r := range e.Results {
			line, err := json.Marshal(recorded{e.Time.Format(time.DateOnly), machine, versions, e.Load, e.What, r})
			if err != nil {
				return err
			}
			lines.Write(append(line, '\n'))
		}
	}
	if err := makeParents(path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	if err := endLine(f); err != nil {
		return errors.Join(err, f.Close())
	}
	_, err = f.Write(lines.Bytes())
	return errors.Join(err, f.Close())
}

// versionsOf says what was measured. Entries of one journal may be from several binaries.
func versionsOf(entries []entry) (string, error) {
	var binaries []string
	for _, e := range entries {
		if !slices.Contains(binaries, e.Binaries) {
			binaries = append(binaries, e.Binaries)
		}
	}
	if len(binaries) > 1 {
		return "", fmt.Errorf("results of %d different binaries are not recorded as those of one: measure all with the same, or select with -run", len(binaries))
	}
	text := []string{"binaries " + strings.Join(binaries, "")}
	for _, c := range [][]string{{"git", "rev-parse", "--short", "HEAD"}, {"buildah", "--version"}} {
		if out, err := output(c[0], c[1:]...); err == nil {
			text = append(text, strings.TrimPrefix(c[0]+" "+out, "buildah "))
		}
	}
	return strings.Join(text, ", "), nil
}

// machineName is what a reader wants to know of it: cores, memory, kernel.
func machineName() string {
	name := fmt.Sprintf("%d cores, %s", runtime.NumCPU(), runtime.GOARCH)
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		if fields := strings.Fields(string(text)); len(fields) > 1 {
			if kib, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
				name += fmt.Sprintf(", %d GB", kib>>20)
			}
		}
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		name += ", Linux " + strings.TrimSpace(string(text))
	}
	return name
}

// regression is a ratio that is worse than the last recorded one.
type regression struct {
	now  Result
	last recorded
}

// worse is how much larger a ratio has to be than the last one. Whether it is noise has to be seen from the interval, which is printed beside it.
const worse = 1.1

func regressions(last []recorded, entries []entry) (list []regression) {
	before := map[string]recorded{}
	for _, r := range last {
		before[r.key()] = r
	}
	for _, e := range entries {
		for _, now := range e.Results {
			r, ok := before[now.key()]
			value, old := now.Ratio, r.Ratio
			if now.Stock == 0 || r.Stock == 0 { // nothing to compare with but itself
				value, old = now.Optbuild, r.Optbuild
			}
			if strings.HasSuffix(now.Case, ", cached") || strings.HasSuffix(now.Case, ", replayed") { // more is not worse
				continue
			}
			if ok && value > worse*old && (now.Stock == 0) == (r.Stock == 0) {
				list = append(list, regression{now, r})
			}
		}
	}
	return list
}

func printRegressions(out io.Writer, list []regression) {
	for _, r := range list {
		now, old := r.now.Ratio, r.last.Ratio
		if r.now.Stock == 0 {
			now, old = r.now.Optbuild, r.last.Optbuild
		}
		fmt.Fprintf(out, "regression: %s against %s: %.2f, %s; it was %.2f on %s (%s)\n",
			r.now.Case, cmp.Or(r.now.Against, "stock"), now, cmp.Or(r.now.interval(), "too few runs for an interval"), old, r.last.Date, r.last.Machine)
	}
}

// tableSides are the columns of the README's table.
var tableSides = []string{"stock/naive", "stock/by-hand", "stock-once/naive", "buildah/naive", "optbuild-off/naive", "optbuild-user/naive", "floor"}

// printRecorded prints the matrix of the last recorded ratios of times as a table in Markdown, and from where they are.
func printRecorded(out io.Writer, path string) error {
	list, err := readRecorded(path)
	if err != nil {
		return err
	}
	type row struct {
		what   string
		ours   Result
		ratios map[string]Result
	}
	var names []string
	rows, sources := map[string]*row{}, []string{}
	for _, r := range list {
		name, ok := strings.CutSuffix(r.Case, ", time")
		if !ok || !slices.Contains(tableSides, r.Against) {
			continue
		}
		if rows[name] == nil {
			names, rows[name] = append(names, name), &row{what: r.What, ours: r.Result, ratios: map[string]Result{}}
		}
		rows[name].ratios[r.Against] = r.Result
		if source := r.Date + "; " + r.Machine + "; " + r.Versions; !slices.Contains(sources, source) {
			sources = append(sources, source)
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("%s has no results of the matrix; make some with -record", filepath.ToSlash(path))
	}
	sides := slices.DeleteFunc(slices.Clone(tableSides), func(side string) bool {
		return !slices.ContainsFunc(names, func(n string) bool { return rows[n].ratios[side].Ratio > 0 })
	})
	fmt.Fprintf(out, "| | %s, s | %s |\n|---|%s\n", subject, strings.Join(sides, " | "), strings.Repeat("--:|", len(sides)+1))
	for _, name := range names {
		r := rows[name]
		fmt.Fprintf(out, "| %s (%s) | %.2f |", name, r.what, r.ours.Optbuild)
		for _, side := range sides {
			fmt.Fprintf(out, " %s |", r.ratios[side].cell())
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintf(out, "\nTime of %s, and its ratio to that of others; in brackets where the interval of 95 %% includes 1. %s.\n", subject, strings.Join(sources, ". "))
	return nil
}
