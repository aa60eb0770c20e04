package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder/housekeeping"
	"github.com/optbuild/optbuild/cache"
)

func pruneCommand() *cli.Command {
	return &cli.Command{
		Name:  "prune",
		Usage: "remove build cache; images of the local store stay",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "remove also what images share, and external frontends"},
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "accepted: prune does not ask"},
			&cli.StringSliceFlag{Name: "filter", Usage: "remove only until=24h (unused for so long), type=exec.cachemount, id=PREFIX, ..."},
			&cli.StringFlag{Name: "keep-bytes", Aliases: []string{"keep-storage", "max-used-space"}, Usage: "keep so much of the cache, what was used last first"},
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "accepted: prune lists what it removes"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("prune takes no arguments")
			}
			req, err := pruneRequest(c.Bool("all"), c.StringSlice("filter"), c.String("keep-bytes"))
			if err != nil {
				return &usageErr{err}
			}
			conn, err := connect(c)
			if err != nil {
				return err
			}
			p, err := conn.Keeper().Prune(c.Context, req)
			if cerr := conn.Close(); err == nil {
				err = cerr
			}
			if err != nil {
				return err
			}
			return printPruned(c.App.Writer, p)
		},
	}
}

// filterKeys are the fields that BuildKit filters records by, and whether a value is required.
var filterKeys = map[string]bool{
	"id": true, "parents": true, "description": true, "type": true,
	"inuse": false, "mutable": false, "immutable": false, "shared": false, "private": false,
}

// pruneRequest reads filters as buildx does: all of them must hold; an id may be given by its beginning.
func pruneRequest(all bool, filters []string, keep string) (r housekeeping.PruneRequest, err error) {
	r.All = all
	var conditions []string
	for _, f := range filters {
		key, value, has := strings.Cut(f, "=")
		needs, known := filterKeys[key]
		switch {
		case key == "until" || key == "unused-for":
			if r.Unused, err = time.ParseDuration(value); err != nil || r.Unused <= 0 {
				return r, fmt.Errorf("--filter %s: is not a time like 24h", f)
			}
		case !known:
			return r, fmt.Errorf("--filter %s: unknown key (until, id, type, description, parents, inuse, mutable, immutable, shared or private)", f)
		case needs && value == "":
			return r, fmt.Errorf("--filter %s: needs a value", f)
		case key == "id":
			conditions = append(conditions, fmt.Sprintf("id~=%q", "^"+value))
		case needs:
			conditions = append(conditions, fmt.Sprintf("%s==%q", key, value))
		case has && value == "false":
			return r, fmt.Errorf("--filter %s: takes no value (mutable and immutable, shared and private are opposites)", f)
		default:
			conditions = append(conditions, key)
		}
	}
	if len(conditions) > 0 {
		r.Filters = []string{strings.Join(conditions, ",")}
	}
	if keep != "" {
		if r.Keep, err = cache.ParseBytes(keep); err != nil {
			return r, fmt.Errorf("--keep-bytes %s: %w", keep, err)
		}
		if len(filters) > 0 {
			return r, errors.New("--keep-bytes: can't be combined with --filter")
		}
	}
	return r, nil
}

func printPruned(w io.Writer, p housekeeping.Pruned) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	if len(p.Removed) > 0 {
		fmt.Fprintf(t, "ID\tTYPE\tSIZE\tDESCRIPTION\n")
	}
	slices.SortStableFunc(p.Removed, func(a, b cache.Record) int { return strings.Compare(a.Type, b.Type) })
	for _, r := range p.Removed {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", r.ID, r.Type, cache.FormatBytes(r.Bytes), oneLine(r.Description))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "Freed: %s\n", cache.FormatBytes(p.FreedBytes))
	return err
}
