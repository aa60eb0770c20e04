// Command bench builds the same things with optbuild and with stock BuildKit (buildkitd and buildctl of the same version,
// from the same module), run by run in turn, and prints medians and their ratio.
//
// What comes in are binaries and a Dockerfile's directory; what goes out is a table on standard output and, with -json, a
// file. Ratios are what counts: the machine may be noisy, but it is equally noisy for both. Cases are rows of a table in
// cases.go; a new one is a function that says how to get ready and which command to time.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	var o options
	flag.StringVar(&o.Optbuild, "optbuild", "bin/optbuild", "binary to measure")
	flag.StringVar(&o.Stock, "stock", "bin/stock", "directory with buildkitd and buildctl")
	flag.StringVar(&o.Runc, "runc", "builder/runtime/embedded/runc", "runc for buildkitd")
	flag.StringVar(&o.App, "app", "integration/demo/app", "directory with the Dockerfile to build")
	flag.StringVar(&o.Dir, "dir", "", "where the states go; not tmpfs (default: a new directory in /var/tmp)")
	flag.StringVar(&o.User, "user", "", "measure optbuild as this user, too")
	flag.IntVar(&o.Runs, "n", 11, "runs of each short case; long ones run a third as often")
	only := flag.String("run", "", "cases to run (regular expression)")
	file := flag.String("json", "", "write the results to this file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, *only, *file); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	Optbuild, Stock, Runc, App, Dir, User string
	Runs                                  int
}

// Result is one row: what was measured, for both sides, and the bound that it is held to.
type Result struct {
	Case     string  `json:"case"`
	Unit     string  `json:"unit"`
	Optbuild float64 `json:"optbuild"` // median
	Stock    float64 `json:"stock"`    // median; 0 where there is nothing to compare with
	// Against is what Stock is the median of; "" is the same build with stock BuildKit. "by hand" is a Dockerfile that an expert wrote, with
	// stock BuildKit; "unwatched" optbuild without watching steps.
	Against string  `json:"against,omitempty"`
	Ratio   float64 `json:"ratio"` // Optbuild / Stock
	// Bound is the largest ratio (without Stock: value) that the project allows; 0 means that there is none.
	Bound float64 `json:"bound,omitempty"`
	Runs  int     `json:"runs"`
	// Spread is the distance of the quartiles of the ratios of neighbouring runs: how far to trust Ratio.
	Spread float64 `json:"spread"`
	Best   float64 `json:"best,omitempty"` // the smallest of those ratios
	Worst  float64 `json:"worst,omitempty"`
	// Low and High are between which the ratio lies, with a confidence of 95 %, if these runs are like others. 0 with fewer than 3 runs.
	Low  float64 `json:"low,omitempty"`
	High float64 `json:"high,omitempty"`
}

// nothing is the bound of what has to be 0.
const nothing = -1

func run(ctx context.Context, o options, only, file string) error {
	want, err := regexp.Compile(only)
	if err != nil {
		return err
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
	var results []Result
	for _, c := range list {
		if !want.MatchString(c.name) || c.asked && !strings.Contains(only, c.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s …\n", c.name)
		r, err := b.measure(ctx, c)
		var why skipped
		if errors.As(err, &why) {
			fmt.Fprintf(os.Stderr, "  skipped: %s\n", why)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		for _, r := range r {
			fmt.Fprintf(os.Stderr, "  %s\n", r)
		}
		results = append(results, r...)
	}
	results = append(results, watchedOverall(results)...)
	printTable(results)
	if file == "" {
		return nil
	}
	out, err := json.MarshalIndent(map[string]any{"time": time.Now().UTC(), "results": results}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, append(out, '\n'), 0o644)
}

// String is the row as one line, for those who wait.
func (r Result) String() string {
	if r.Stock == 0 {
		return fmt.Sprintf("%s: %s %s %s", r.Case, figure(r.Optbuild), r.Unit, r.bound())
	}
	return fmt.Sprintf("%s: %s %s, %s %s: ratio %.2f %s %s",
		r.Case, figure(r.Optbuild), r.Unit, cmp.Or(r.Against, "stock"), figure(r.Stock), r.Ratio, r.interval(), r.bound())
}

// interval says how far the ratio can be trusted.
func (r Result) interval() string {
	if r.High == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f–%.2f", r.Low, r.High)
}

// bound says what the row is held to, and whether that was missed.
func (r Result) bound() string {
	if r.Bound == 0 {
		return ""
	}
	limit := max(r.Bound, 0) // see nothing
	bound := fmt.Sprintf("≤ %.3g", limit)
	if r.Stock > 0 && r.Ratio > limit || r.Stock == 0 && r.Optbuild > limit {
		bound += " missed"
	}
	return bound
}

// figure writes a measure with as many digits as there is to see.
func figure(v float64) string {
	if v < 10 {
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

func printTable(results []Result) {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "case\toptbuild\tother\tunit\tagainst\tratio\t±\t95 %\tbest\tworst\tbound\truns\t")
	for _, r := range results {
		ratio, best, worst, other, against := "", "", "", "", ""
		if r.Stock > 0 {
			ratio, best, worst = fmt.Sprintf("%.2f", r.Ratio), fmt.Sprintf("%.2f", r.Best), fmt.Sprintf("%.2f", r.Worst)
			other, against = figure(r.Stock), cmp.Or(r.Against, "stock")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%.2f\t%s\t%s\t%s\t%s\t%d\t\n",
			r.Case, figure(r.Optbuild), other, r.Unit, against, ratio, r.Spread/2, r.interval(), best, worst, r.bound(), r.Runs)
	}
	w.Flush()
}

// summarise makes a row from runs of both sides that were made in turn.
func summarise(name, unit string, ours, stock []float64, bound float64) Result {
	r := Result{Case: name, Unit: unit, Optbuild: median(ours), Bound: bound, Runs: len(ours)}
	if len(stock) == 0 {
		r.Spread = quantile(ours, 0.75) - quantile(ours, 0.25)
		return r
	}
	r.Stock = median(stock)
	r.Ratio = r.Optbuild / r.Stock
	var pairs []float64
	for i := range ours {
		pairs = append(pairs, ours[i]/stock[i])
	}
	r.Spread, r.Best, r.Worst = quantile(pairs, 0.75)-quantile(pairs, 0.25), slices.Min(pairs), slices.Max(pairs)
	r.Low, r.High = interval(ours, stock)
	return r
}

// interval is the bootstrap's for the ratio of the medians: what it would have been, had other ones of these pairs been measured, some of them more than
// once. The same pairs give the same interval.
func interval(ours, stock []float64) (low, high float64) {
	if len(ours) < 3 {
		return 0, 0
	}
	r := rand.New(rand.NewPCG(1, 1))
	var ratios []float64
	some, other := make([]float64, len(ours)), make([]float64, len(ours))
	for range 2000 {
		for i := range some {
			k := r.IntN(len(ours))
			some[i], other[i] = ours[k], stock[k]
		}
		ratios = append(ratios, median(some)/median(other))
	}
	return quantile(ratios, 0.025), quantile(ratios, 0.975)
}

func median(v []float64) float64 { return quantile(v, 0.5) }

// quantile interpolates between the values around the place q (0..1) in order.
func quantile(v []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if len(s) == 0 {
		return 0
	}
	at := q * float64(len(s)-1)
	i := int(at)
	if i+1 >= len(s) {
		return s[len(s)-1]
	}
	return s[i] + (at-float64(i))*(s[i+1]-s[i])
}
