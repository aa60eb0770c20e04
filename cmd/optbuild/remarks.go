package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder"
	"github.com/optbuild/optbuild/frontend/explain"
	"github.com/optbuild/optbuild/frontend/opt"
)

// This file is for what a build says of the compiler's work.

func remarkFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "remarks", Usage: "print what the optimiser says: passed, missed, analysis, separated by commas, [`KINDS`:REGEXP] of pass/name"},
		&cli.StringFlag{Name: "report", Usage: "`FILE` that receives a page on what was optimised, cached and run"},
	}
}

// remarkFilter says which remarks are printed; its zero value, none.
type remarkFilter struct {
	kinds []opt.Kind
	names *regexp.Regexp // nil for all
}

// parseRemarks reads --remarks.
func parseRemarks(flag string) (f remarkFilter, err error) {
	if flag == "" {
		return f, nil
	}
	kinds, pattern, filtered := strings.Cut(flag, ":")
	for kind := range strings.SplitSeq(kinds, ",") {
		k := opt.Kind(strings.TrimSpace(kind))
		if !slices.Contains([]opt.Kind{opt.Passed, opt.Missed, opt.Analysis}, k) {
			return f, usagef("--remarks %s: %q is not passed, missed or analysis", flag, kind)
		}
		f.kinds = append(f.kinds, k)
	}
	if filtered {
		if f.names, err = regexp.Compile(pattern); err != nil {
			return f, usagef("--remarks %s: %w", flag, err)
		}
	}
	return f, nil
}

func (f remarkFilter) wants(r opt.Remark) bool {
	return slices.Contains(f.kinds, r.Kind) && (f.names == nil || f.names.MatchString(r.Pass+"/"+r.Name))
}

// told is what a build tells of the compiler's work, and how.
type told struct {
	filter remarkFilter
	page   string // --report
	quiet  bool   // nothing that was not asked for
}

// compilation is the account of the compiler's report, completed with what was measured: in this build, or before it.
// nil if the compiler did not run.
func (b *build) compilation(ctx context.Context, conn *builder.Conn, times *stepTimes, resp *client.SolveResponse) *explain.Account {
	if b.unreported != nil { // the build went well all the same
		warn(b.unreported.Error())
	}
	report := b.report
	if report == nil || report.Account == nil {
		return nil
	}
	a := report.Account
	if b.solve.Dockerfile != "" {
		a.SetFile(shortPath(b.solve.Dockerfile))
	}
	var records []*client.UsageInfo
	if b.told.page != "" { // to ask has its price: the engine measures what it has not measured yet
		var err error
		if records, err = conn.Client.DiskUsage(ctx); err != nil {
			warn("--report: ask for the sizes of steps: " + err.Error())
		}
	}
	now := times.measures(report, records)
	before := readLearned(b.state)
	when := time.Now().UTC().Truncate(time.Second)
	steps, images := before.add(a, b.solve.Dockerfile, now, when), before.addImages(a, when)
	if layers := before.addLayers(b.solve.Dockerfile, b.solve.FrontendAttrs["target"], resp.ExporterResponse, when); steps || images || layers {
		if err := before.write(b.state); err != nil {
			warn("note what steps took: " + err.Error())
		}
	}
	for id, last := range before.find(a, b.solve.Dockerfile) {
		m := now[id]
		m.Seconds, m.Bytes = last.Seconds, last.Bytes
		now[id] = m
	}
	a.SetMeasured(now)
	return a
}

// tell prints and writes what a build has to say of the account; state is the state directory.
func (t told) tell(w io.Writer, a *explain.Account, state string) error {
	if a == nil {
		if t.page != "" {
			warn("--report: the optimiser did not see this Dockerfile, so there is nothing to write")
		}
		return nil
	}
	for _, r := range a.Remarks {
		switch {
		case t.filter.wants(r):
			fmt.Fprintln(w, explain.Visible(r.String()))
		case r.Warning && !t.quiet:
			fmt.Fprintf(w, "optbuild: warning: %s:%d: %s (%s/%s)\n", explain.Visible(r.File), r.Lines.First, explain.Visible(r.Message), r.Pass, r.Name)
		}
	}
	if t.page != "" {
		if err := replaceFile(t.page, func(w io.Writer) error { return explain.HTML(w, a) }); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
	}
	if a.Error != "" {
		warnBroken(w, a, state)
		return nil
	}
	if line := explain.Summary(a); line != "" && !t.quiet {
		warn(line)
	}
	return nil
}

// warnBroken says that the build went on without the optimiser because of a bug in it. It is said even to who wants to hear nothing.
func warnBroken(w io.Writer, a *explain.Account, state string) {
	page := filepath.Join(state, "logs", "explain.html")
	err := os.MkdirAll(filepath.Dir(page), 0o700)
	if err == nil {
		err = replaceFile(page, func(w io.Writer) error { return explain.HTML(w, a) })
	}
	where := "please report it with " + page
	if err != nil {
		where = "what happened could not be written down: " + err.Error()
	}
	first, _, _ := strings.Cut(a.Error, "\n")
	fmt.Fprintf(w, "optbuild: warning: %s (%s); the Dockerfile was built as it is written; %s\n", a.Culprit(), explain.Visible(first), where)
}

// metadataRemarks are the remarks for --metadata-file.
func metadataRemarks(a *explain.Account) []explain.Remark {
	list := []explain.Remark{}
	for _, r := range a.Remarks {
		list = append(list, explain.NewRemark(r))
	}
	return list
}

// silent says that a display leaves no room for lines that nobody asked for.
func silent(mode progressui.DisplayMode) bool {
	return mode == progressui.QuietMode || mode == progressui.RawJSONMode
}
