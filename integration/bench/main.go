// Command bench builds the same things with optbuild, with stock BuildKit (buildkitd and buildctl of the same version, from the same module) and with
// other builders that are there, run by run in turn, and prints medians and their ratios.
//
// What comes in are binaries, and words that say which part to measure; what goes out is tables on standard output, a file with a line of JSON for each
// finished case, and, if asked for, a page. Ratios are what counts: the machine may be noisy, but it is equally noisy for all.
//
//	selection ──> cases (scenarios × workloads, and others) ──> Results ──> journal ──> tables, page, regressions
//	                       peers, downloads, hub
//
// Cases are rows of a table in cases.go. It knows nothing of how builders work: only commands, processes, and what the registry is asked.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"
)

func main() {
	var o options
	flag.StringVar(&o.Optbuild, "optbuild", "bin/optbuild", "binary to measure")
	flag.StringVar(&o.Stock, "stock", "bin/stock", "directory with buildkitd and buildctl")
	flag.StringVar(&o.Runc, "runc", "builder/runtime/embedded/runc", "runc for buildkitd")
	flag.StringVar(&o.App, "app", "integration/demo/app", "directory with the Dockerfile to build")
	flag.StringVar(&o.Floor, "floor", "bin/floor", "program that does what no builder can do without")
	flag.StringVar(&o.Dir, "dir", "", "where the states go; not tmpfs (default: a new directory in /var/tmp)")
	flag.StringVar(&o.User, "user", ordinary(), "measure optbuild as this user, too; \"\": as root only")
	flag.IntVar(&o.Runs, "n", 11, "runs of each short case; long ones run a third as often")
	flag.Func("sides", "builders with Dockerfiles of the matrix (regular expression on names such as stock/by-hand); optbuild/naive always is one", func(s string) (err error) {
		o.Sides, err = regexp.Compile(s)
		return err
	})
	only := flag.String("run", "", "cases to run (regular expression)")
	var f files
	flag.StringVar(&f.journal, "json", "", "write results to this file, a line for each case; what is in it from the same binaries is not measured again")
	flag.BoolVar(&f.again, "again", false, "measure again what is in that file")
	flag.BoolVar(&f.reportOnly, "report", false, "measure nothing: print what is in that file")
	flag.StringVar(&f.page, "html", "", "write a page with plots to this file")
	flag.StringVar(&f.recorded, "recorded", "integration/bench/recorded.jsonl", "results to compare with: who is worse than the last ones is a regression")
	flag.BoolVar(&f.record, "record", false, "add these results to that file")
	flag.BoolVar(&f.table, "table", false, "measure nothing: print the last recorded results as the README's table")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, f, *only, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// ordinary is the user that the tests make, if they have.
func ordinary() string {
	const name = "optbuild-test"
	if _, err := user.Lookup(name); err != nil {
		return ""
	}
	return name
}

type options struct {
	Optbuild, Stock, Runc, App, Floor, Dir, User string
	Runs                                         int
	Sides                                        *regexp.Regexp // nil: all
}

// files says what results are read from and written to.
type files struct {
	journal, page, recorded          string
	again, reportOnly, record, table bool
}

func run(ctx context.Context, o options, f files, only string, words []string) error {
	wanted, err := newSelection(only, words)
	if err != nil {
		return err
	}
	if f.table {
		return printRecorded(os.Stdout, f.recorded)
	}
	if f.reportOnly {
		entries, err := readJournal(f.journal)
		if err != nil {
			return err
		}
		return f.report(entries)
	}
	if os.Geteuid() != 0 {
		return errors.New("stock buildkitd is measured as root; run `make bench` as root")
	}
	if err := adopt(); err != nil {
		return err
	}
	b, err := setUp(ctx, o)
	if err != nil {
		return err
	}
	defer b.close()
	list, err := cases(ctx, b)
	if err != nil {
		return err
	}
	journal, err := openJournal(f.journal, o, f.again)
	if err != nil {
		return err
	}
	defer journal.close()
	var entries []entry
	for _, c := range list {
		if !wanted.has(c) {
			continue
		}
		e, kept := journal.find(c.name)
		if !kept {
			fmt.Fprintf(os.Stderr, "%s …\n", c.name)
			e = entry{Case: c.name, Scenario: c.scenario, Workload: c.workload, Time: time.Now().UTC(), Load: load()}
			e.Results, err = b.measure(ctx, c)
			var why skipped
			if errors.As(err, &why) {
				fmt.Fprintf(os.Stderr, "  skipped: %s\n", why)
				continue
			}
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if c.matrix != nil {
				e.What, e.Builds = c.matrix.what(), c.matrix.builds
			}
			if e, err = journal.add(e); err != nil {
				return err
			}
		}
		e.print(os.Stderr, kept)
		entries = append(entries, e)
	}
	return f.report(entries)
}

// report prints tables of finished cases, and writes what was asked for.
func (f files) report(entries []entry) error {
	var single []Result
	for _, e := range entries {
		if e.Builds == nil {
			single = append(single, e.Results...)
		}
	}
	single = append(single, watchedOverall(single)...)
	if len(single) > 0 {
		printTable(os.Stdout, single)
	}
	printMatrix(os.Stdout, entries)
	last, err := readRecorded(f.recorded)
	if err != nil {
		return err
	}
	printRegressions(os.Stdout, regressions(last, entries))
	if f.page != "" {
		if err := writePage(f.page, entries); err != nil {
			return err
		}
	}
	if f.record {
		return addRecorded(f.recorded, entries)
	}
	return nil
}

// selection is which cases are wanted.
type selection struct {
	text                 string
	pattern              *regexp.Regexp
	scenarios, workloads []string // none: all
}

var word = regexp.MustCompile(`^(S(?:\d|10)|W[1-6])$`)

func newSelection(pattern string, words []string) (s selection, err error) {
	if s.pattern, err = regexp.Compile(pattern); err != nil {
		return s, err
	}
	s.text = pattern
	for _, w := range words {
		switch {
		case !word.MatchString(w):
			return s, fmt.Errorf("%q is neither a scenario (S0 to S10) nor a workload (W1 to W6); flags come first", w)
		case w[0] == 'S':
			s.scenarios = append(s.scenarios, w)
		default:
			s.workloads = append(s.workloads, w)
		}
	}
	return s, nil
}

func (s selection) has(c *one) bool {
	if c.asked && (s.text == "" || !s.pattern.MatchString(c.name)) {
		return false
	}
	return s.pattern.MatchString(c.name) && (s.scenarios == nil || slices.Contains(s.scenarios, c.scenario)) &&
		(s.workloads == nil || slices.Contains(s.workloads, c.workload))
}

// makeParents makes the directory of a file that is to be written.
func makeParents(file string) error { return os.MkdirAll(filepath.Dir(file), 0o755) }
