package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"text/template"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/cache"
)

func dfCommand() *cli.Command {
	return &cli.Command{
		Name:    "df",
		Aliases: []string{"du"},
		Usage:   "show what the state directory takes on disk",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "list each record of the cache"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
			&cli.StringFlag{Name: "format", Usage: "print with a Go template; with -v, one line for each record"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("df takes no arguments")
			}
			conn, err := connect(c)
			if err != nil {
				return err
			}
			u, err := conn.Keeper().Usage(c.Context)
			if cerr := conn.Close(); err == nil {
				err = cerr
			}
			if err != nil {
				return err
			}
			slices.SortFunc(u.Records, func(a, b cache.Record) int {
				return cmp.Or(b.LastUsed.Compare(a.LastUsed), cmp.Compare(a.ID, b.ID))
			})
			return printUsage(c.App.Writer, u, usageFormat{c.Bool("verbose"), c.Bool("json"), c.String("format")}, time.Now())
		},
	}
}

type usageFormat struct {
	verbose, json bool
	template      string
}

func printUsage(w io.Writer, u cache.Usage, f usageFormat, now time.Time) error {
	switch {
	case f.template != "":
		t, err := template.New("format").Funcs(template.FuncMap{"json": toJSON, "size": cache.FormatBytes}).Parse(f.template + "\n")
		if err != nil {
			return usagef("--format: %w", err)
		}
		if !f.verbose {
			return t.Execute(w, u)
		}
		for _, r := range u.Records {
			if err := t.Execute(w, r); err != nil {
				return err
			}
		}
		return nil
	case f.json:
		if !f.verbose {
			u.Records = nil
		}
		return printJSON(w, u)
	case f.verbose:
		return printRecords(w, u.Records, now)
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintf(t, "TYPE\tCOUNT\tSIZE\n")
	mounts := 0
	for _, r := range u.Records {
		if r.Type == "exec.cachemount" {
			mounts++
		}
	}
	fmt.Fprintf(t, "Images\t%d\t%s\n", u.ImageCount, cache.FormatBytes(u.Images))
	fmt.Fprintf(t, "Build cache\t%d\t%s\n", len(u.Records)-mounts, cache.FormatBytes(u.Snapshots))
	fmt.Fprintf(t, "Cache mounts\t%d\t%s\n", mounts, cache.FormatBytes(u.CacheMounts))
	fmt.Fprintf(t, "Blobs of the cache\t\t%s\n", cache.FormatBytes(u.Blobs))
	fmt.Fprintf(t, "Databases\t\t%s\n", cache.FormatBytes(u.Databases))
	fmt.Fprintf(t, "Other\t\t%s\n", cache.FormatBytes(u.Other))
	fmt.Fprintf(t, "Total\t\t%s\n", cache.FormatBytes(u.Total))
	fmt.Fprintf(t, "Reclaimable\t\t%s\n", cache.FormatBytes(u.Reclaimable))
	return t.Flush()
}

func printRecords(w io.Writer, records []cache.Record, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintf(t, "ID\tTYPE\tSIZE\tLAST USED\tDESCRIPTION\n")
	for _, r := range records {
		used := "never"
		switch {
		case r.InUse:
			used = "in use"
		case !r.LastUsed.IsZero():
			used = units.HumanDuration(now.Sub(r.LastUsed)) + " ago"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", r.ID, r.Type, cache.FormatBytes(r.Bytes), used, oneLine(r.Description))
	}
	return t.Flush()
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func toJSON(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}
