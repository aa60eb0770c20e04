package fuzzbuild

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// Row is what was counted in one project.
type Row struct {
	Project   string
	Mutations int
	Kills     int
	Prunes    int
	Builds    int // of optbuild
	Clean     int // of stock BuildKit
	Mattered  int // builds whose clean result is not that of the build before
	// Steps, by outcome.
	Executed, Replayed, Cached, Unwatched int
	Needless                              int
	Failed                                int // builds that fail, as they should
	Took                                  time.Duration
	Ours, Stock                           time.Duration // in builds of optbuild, and in clean ones
	Skipped                               string
	Err                                   error // that ended it
	Differences                           []Difference
}

func (r *Row) count(o *Outcome) {
	r.Builds++
	if o.Failed != "" {
		r.Failed++
	}
	for _, s := range o.Steps {
		switch s.Outcome {
		case Executed:
			r.Executed++
		case Replayed:
			r.Replayed++
		case Cached:
			r.Cached++
		case Unwatched:
			r.Unwatched++
		}
	}
}

func (r *Row) kind(k Kind) int {
	n := 0
	for _, d := range r.Differences {
		if d.Kind == k {
			n++
		}
	}
	return n
}

func (r *Row) add(o *Row) {
	r.Mutations += o.Mutations
	r.Kills += o.Kills
	r.Prunes += o.Prunes
	r.Builds += o.Builds
	r.Clean += o.Clean
	r.Mattered += o.Mattered
	r.Executed += o.Executed
	r.Replayed += o.Replayed
	r.Cached += o.Cached
	r.Unwatched += o.Unwatched
	r.Needless += o.Needless
	r.Failed += o.Failed
	r.Took += o.Took
	r.Ours += o.Ours
	r.Stock += o.Stock
	r.Differences = append(r.Differences, o.Differences...)
}

// Report is what came of a campaign.
type Report struct {
	Seed uint64
	Date time.Time
	Rows []*Row

	mu sync.Mutex
}

// Bad are the differences that are a bug: all but those by time and by cache.
func (r *Report) Bad() []Difference {
	var out []Difference
	for _, row := range r.Rows {
		for _, d := range row.Differences {
			if d.Kind != ByTime && d.Kind != ByCache {
				out = append(out, d)
			}
		}
	}
	return out
}

// Total is the sum of all rows.
func (r *Report) Total() *Row {
	t := &Row{Project: "total"}
	for _, row := range r.Rows {
		t.add(row)
	}
	return t
}

// Print writes a table, a row a project.
func (r *Report) Print(w io.Writer) {
	fmt.Fprintf(w, "fuzz-build: seed %d, %s\n", r.Seed, r.Date.Format("2006-01-02"))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "project\tchanges\tbuilds\tmatter\tclean\tfailing\texecuted\treplayed\tcached\tunwatched\tneedless\tstale\tby time\tby cache\twrong\tunstable\tseconds\t")
	for _, row := range append(r.Rows[:len(r.Rows):len(r.Rows)], r.Total()) {
		if row.Skipped != "" {
			continue
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%.0f\t\n", row.Project, row.Mutations, row.Builds, row.Mattered, row.Clean, row.Failed, row.Executed,
			row.Replayed, row.Cached, row.Unwatched, row.Needless, row.kind(Stale), row.kind(ByTime), row.kind(ByCache), row.kind(Wrong), row.kind(Unstable), row.Took.Seconds())
	}
	t.Flush()
	for _, row := range r.Rows {
		if row.Skipped != "" {
			fmt.Fprintf(w, "skipped: %s: %s\n", row.Project, row.Skipped)
		}
	}
}

// Line is the report in a line.
func (r *Report) Line() string {
	t := r.Total()
	var kinds []string
	for _, k := range []Kind{Stale, ByTime, ByCache, Wrong, Unstable} {
		kinds = append(kinds, fmt.Sprintf("%d %s", t.kind(k), k))
	}
	return fmt.Sprintf("seed %d: %d changes of %d projects, %d kills, %d prunes; %d builds (%.2f s each) and %d clean ones (%.2f s); RUN steps: %d executed, %d replayed, %d cached, %d unwatched, "+
		"%d needless; %s", r.Seed, t.Mutations, len(r.Rows), t.Kills, t.Prunes, t.Builds, t.Ours.Seconds()/float64(max(t.Builds, 1)),
		t.Clean, t.Stock.Seconds()/float64(max(t.Clean, 1)), t.Executed, t.Replayed, t.Cached, t.Unwatched, t.Needless, strings.Join(kinds, ", "))
}
