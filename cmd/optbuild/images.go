package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder/store"
)

func imagesCommand() *cli.Command {
	return &cli.Command{
		Name:      "images",
		Usage:     "list the images in the local store",
		ArgsUsage: "[REPOSITORY[:TAG]]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "show all images (they always are)"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "show image ids only"},
			&cli.BoolFlag{Name: "digests", Usage: "show digests"},
			&cli.BoolFlag{Name: "no-trunc", Usage: "show ids in full"},
			&cli.StringSliceFlag{Name: "filter", Aliases: []string{"f"}, Usage: "reference=`PATTERN` or dangling=true|false"},
			&cli.StringFlag{Name: "format", Usage: "table, table TEMPLATE, json, or a Go `TEMPLATE`"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON array"},
		},
		Action: runImages,
	}
}

func runImages(c *cli.Context) error {
	if c.NArg() > 1 {
		return usagef("images takes at most one argument (got %d)", c.NArg())
	}
	o, err := listOptions(c.StringSlice("filter"))
	if err != nil {
		return err
	}
	if c.NArg() == 1 {
		o.References = append(o.References, c.Args().First())
	}
	var list []store.Image
	err = withStore(c, nil, func(ctx context.Context, s *store.Store) error {
		list, err = s.List(ctx, o)
		return err
	})
	if err != nil {
		return err
	}
	return printImages(c.App.Writer, list, imagesFormat{
		format: c.String("format"), json: c.Bool("json"), quiet: c.Bool("quiet"), digests: c.Bool("digests"), full: c.Bool("no-trunc"), now: time.Now(),
	})
}

func listOptions(filters []string) (o store.ListOptions, err error) {
	for _, f := range filters {
		key, value, _ := strings.Cut(f, "=")
		switch key {
		case "reference":
			o.References = append(o.References, value)
		case "dangling":
			only, err := strconv.ParseBool(value)
			if err != nil {
				return o, usagef("--filter %s: is not dangling=true or dangling=false", f)
			}
			o.Dangling = &only
		default:
			return o, usagef("--filter %s: is not reference=PATTERN or dangling=true|false", f)
		}
	}
	return o, nil
}

type imagesFormat struct {
	format                     string
	json, quiet, digests, full bool
	now                        time.Time
}

// imageRow has the fields of docker's listing.
type imageRow struct {
	CreatedAt, CreatedSince, Digest, ID, Repository, Size, Tag string
}

// imageJSON is what --json prints of an image.
type imageJSON struct {
	Name       string        `json:"name"`
	Repository string        `json:"repository"`
	Tag        string        `json:"tag"`
	ID         digest.Digest `json:"id"`
	Created    time.Time     `json:"created"`
	Bytes      int64         `json:"bytes"`
	Platforms  []string      `json:"platforms"`
	Dangling   bool          `json:"dangling"`
}

func printImages(w io.Writer, list []store.Image, f imagesFormat) error {
	if f.json {
		out := make([]imageJSON, len(list))
		for i, m := range list {
			out[i] = imageJSON{m.Name, m.Repository, m.Tag, m.ID, m.Created, m.Bytes, append([]string{}, m.Platforms...), m.Dangling}
		}
		return printJSON(w, out)
	}
	headings := imageRow{"CREATED AT", "CREATED", "DIGEST", "IMAGE ID", "REPOSITORY", "SIZE", "TAG"}
	rows := make([]imageRow, len(list))
	for i, m := range list {
		rows[i] = imageRow{
			CreatedAt: m.Created.Local().Format("2006-01-02 15:04:05 -0700 MST"), CreatedSince: since(m.Created, f.now), Digest: m.ID.String(),
			ID: shortID(m.ID), Repository: m.Repository, Size: units.HumanSizeWithPrecision(float64(m.Bytes), 3), Tag: m.Tag,
		}
		if f.full {
			rows[i].ID = m.ID.String()
		}
	}
	switch {
	case f.quiet && f.format == "":
		f.format = "{{.ID}}"
	case f.quiet && strings.HasPrefix(f.format, "table"):
		f.format = "table {{.ID}}"
	}
	table := "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
	if f.digests {
		table = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
	}
	return printRows(w, f.format, table, headings, rows)
}

func since(t, now time.Time) string {
	if t.IsZero() {
		return "N/A"
	}
	return units.HumanDuration(now.Sub(t)) + " ago"
}

// shortID is how people see an image's id.
func shortID(d digest.Digest) string {
	id := d.Encoded()
	return id[:min(12, len(id))]
}

func tagCommand() *cli.Command {
	return &cli.Command{
		Name:      "tag",
		Usage:     "give an image another name",
		ArgsUsage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
		Action: func(c *cli.Context) error {
			if c.NArg() != 2 {
				return usagef("tag takes two arguments: an image, and its new name (got %d)", c.NArg())
			}
			return withStore(c, nil, func(ctx context.Context, s *store.Store) error {
				return s.Tag(ctx, c.Args().Get(0), c.Args().Get(1))
			})
		},
	}
}

func rmiCommand() *cli.Command {
	return &cli.Command{
		Name:      "rmi",
		Usage:     "remove images from the local store",
		ArgsUsage: "IMAGE [IMAGE...]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "given an id, remove all names of the image; don't mind if it is not there"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return usagef("rmi takes at least one argument: an image's name or id")
			}
			return withStore(c, nil, func(ctx context.Context, s *store.Store) error {
				return removeImages(ctx, c.App.Writer, s, c.Args().Slice(), c.Bool("force"))
			})
		},
	}
}

// removeImages removes what it can and reports the rest at the end.
func removeImages(ctx context.Context, w io.Writer, s *store.Store, refs []string, force bool) error {
	var errs []error
	for _, ref := range refs {
		removed, err := s.Remove(ctx, ref, force)
		for _, r := range removed {
			if r.Untagged != "" {
				fmt.Fprintln(w, "Untagged:", r.Untagged)
			}
			if r.Deleted != "" {
				fmt.Fprintln(w, "Deleted:", r.Deleted)
			}
		}
		if err != nil && (!force || !errors.Is(err, store.ErrNoImage)) {
			errs = append(errs, err)
		}
	}
	return joinErrors(errs)
}
