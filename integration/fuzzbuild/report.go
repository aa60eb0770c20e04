package fuzzbuild

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
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
	Needless, After                       int            // After are those of Needless that ran since one below them did
	Reasons                               map[string]int // why needless steps ran
	Failed                                int            // builds that fail, as they should
	Far                                   Far
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

// needless counts steps that ran and need not have.
func (r *Row) needless(steps []Step) {
	r.Needless += len(steps)
	for _, s := range steps {
		if strings.HasPrefix(s.Reason, "the result of ") || strings.HasPrefix(s.Reason, "base image ") {
			r.After++
		}
		if s.Reason != "" {
			r.reason(fmt.Sprintf("%s: %.60s: %.60s", r.Project, s.Name, s.Reason), 1)
		}
	}
}

func (r *Row) reason(text string, n int) {
	if r.Reasons == nil {
		r.Reasons = map[string]int{}
	}
	r.Reasons[text] += n
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
	r.After += o.After
	for reason, n := range o.Reasons {
		r.reason(reason, n)
	}
	r.Failed += o.Failed
	r.Far.add(o.Far)
	r.Took += o.Took
	r.Ours += o.Ours
	r.Stock += o.Stock
	r.Differences = append(r.Differences, o.Differences...)
}

const shownReasons = 12

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
	columns := []string{"project", "changes", "builds", "matter", "clean", "failing", "executed", "replayed", "cached", "unwatched", "needless", "after"}
	for _, k := range kinds {
		columns = append(columns, string(k))
	}
	fmt.Fprintln(t, strings.Join(append(columns, "seconds"), "\t")+"\t")
	for _, row := range append(r.Rows[:len(r.Rows):len(r.Rows)], r.Total()) {
		if row.Skipped != "" {
			continue
		}
		fmt.Fprintf(t, "%s\t", row.Project)
		for _, n := range []int{row.Mutations, row.Builds, row.Mattered, row.Clean, row.Failed,
			row.Executed, row.Replayed, row.Cached, row.Unwatched, row.Needless, row.After} {
			fmt.Fprintf(t, "%d\t", n)
		}
		for _, k := range kinds {
			fmt.Fprintf(t, "%d\t", row.kind(k))
		}
		fmt.Fprintf(t, "%.0f\t\n", row.Took.Seconds())
	}
	t.Flush()
	reasons := r.Total().Reasons
	often := slices.SortedFunc(maps.Keys(reasons), func(a, b string) int {
		return cmp.Or(cmp.Compare(reasons[b], reasons[a]), cmp.Compare(a, b))
	})
	for _, reason := range often[:min(len(often), shownReasons)] {
		fmt.Fprintf(w, "needless: %d times %s\n", reasons[reason], reason)
	}
	for _, row := range r.Rows {
		if row.Skipped != "" {
			fmt.Fprintf(w, "skipped: %s: %s\n", row.Project, row.Skipped)
		}
	}
}

// Line is the report in a line.
func (r *Report) Line() string {
	t := r.Total()
	var found []string
	for _, k := range kinds {
		found = append(found, fmt.Sprintf("%d %s", t.kind(k), k))
	}
	average := func(all time.Duration, n int) float64 { return all.Seconds() / float64(max(n, 1)) }
	return fmt.Sprintf("seed %d: %d changes of %d projects, %d kills, %d prunes; %d builds (%.2f s each) and %d clean ones (%.2f s); "+
		"RUN steps: %d executed, %d replayed, %d cached, %d unwatched, %d needless (%d after one that ran); %s",
		r.Seed, t.Mutations, len(r.Rows), t.Kills, t.Prunes, t.Builds, average(t.Ours, t.Builds), t.Clean, average(t.Stock, t.Clean),
		t.Executed, t.Replayed, t.Cached, t.Unwatched, t.Needless, t.After, strings.Join(found, ", "))
}

// kinds are those of differences, as they are printed.
var kinds = []Kind{Stale, ByTime, ByCache, Wrong, Unstable}
