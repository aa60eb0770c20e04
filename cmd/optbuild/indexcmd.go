package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder/index"
	"github.com/optbuild/optbuild/builder/registry"
	"github.com/optbuild/optbuild/builder/request"
)

func indexCommand() *cli.Command {
	annotation := &cli.StringSliceFlag{Name: "annotation", Usage: "annotation of the index, or with a type of its entries: [index|manifest-descriptor[PLATFORM]:]`KEY=VALUE`; an empty value removes it"}
	json := &cli.BoolFlag{Name: "json", Usage: "print JSON"}
	return &cli.Command{
		Name:  "index",
		Usage: "make and change the indexes of images at registries (docker buildx imagetools)",
		Subcommands: []*cli.Command{
			{
				Name: "create", Usage: "make an index of images that are at registries, and copy what is elsewhere", ArgsUsage: "SOURCE...",
				Flags: []cli.Flag{
					&cli.StringSliceFlag{Name: "tag", Aliases: []string{"t"}, Usage: "`REFERENCE` that the index gets; several"},
					&cli.BoolFlag{Name: "append", Usage: "add to what the tag refers to; entries for the same platform are replaced"},
					&cli.StringSliceFlag{Name: "platform", Aliases: []string{"p"}, Usage: "take these `PLATFORMS` of the sources only"},
					annotation,
					&cli.BoolFlag{Name: "dry-run", Usage: "print the index, and write nothing"},
				},
				Action: runIndexCreate,
			},
			{
				Name: "inspect", Usage: "show what an index at a registry has", ArgsUsage: "REFERENCE",
				Flags: []cli.Flag{json, &cli.BoolFlag{Name: "raw", Usage: "print the index as it is, byte for byte"}}, Action: runIndexInspect,
			},
			{
				Name: "annotate", Usage: "change the annotations of an index at a registry", ArgsUsage: "REFERENCE",
				Flags: []cli.Flag{annotation}, Action: runIndexAnnotate,
			},
		},
		Action: groupAction,
	}
}

func indexes(c *cli.Context) (index.Registry, error) {
	registries, err := registryConfig(c)
	return index.New(registry.ClientHosts(registries)), err
}

func runIndexCreate(c *cli.Context) error {
	if c.NArg() == 0 {
		return usagef("index create takes at least one argument: the reference of an image")
	}
	o := index.CreateOptions{Sources: c.Args().Slice(), Append: c.Bool("append"), DryRun: c.Bool("dry-run")}
	var tags []reference.NamedTagged
	for _, t := range c.StringSlice("tag") {
		named, err := index.ParseTag(t)
		if err != nil {
			return usagef("--tag %s: %w", t, err)
		}
		tags = append(tags, named)
	}
	if len(tags) == 0 {
		return usagef("index create needs a name for the index: -t REFERENCE")
	}
	for _, list := range c.StringSlice("platform") {
		for v := range strings.SplitSeq(list, ",") {
			p, err := request.ParsePlatform(strings.TrimSpace(v))
			if err != nil {
				return usagef("--platform %s: %w", v, err)
			}
			o.Platforms = append(o.Platforms, p)
		}
	}
	var err error
	if o.Annotations, err = indexAnnotations(c.StringSlice("annotation")); err != nil {
		return err
	}
	r, err := indexes(c)
	if err != nil {
		return err
	}
	made, err := r.Create(c.Context, tags, o)
	for _, m := range made { // also those before an error
		if o.DryRun {
			if _, perr := c.App.Writer.Write(m.Raw); perr != nil { // what would be written, byte for byte
				return perr
			}
			continue
		}
		printIndex(c.App.Writer, m)
	}
	return err
}

// printIndex prints a line: what was made is the result.
func printIndex(w io.Writer, r index.Result) { fmt.Fprintf(w, "%s@%s\n", r.Name, r.Digest) }

func runIndexAnnotate(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef("index annotate takes one argument, the reference of an index (got %d)", c.NArg())
	}
	named, err := index.ParseTag(c.Args().First())
	if err != nil {
		return usagef("%s %w", c.Args().First(), err)
	}
	list, err := indexAnnotations(c.StringSlice("annotation"))
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return usagef("index annotate needs at least one --annotation KEY=VALUE")
	}
	r, err := indexes(c)
	if err != nil {
		return err
	}
	made, err := r.Annotate(c.Context, named, list)
	if err != nil {
		return err
	}
	printIndex(c.App.Writer, made)
	return nil
}

// indexAnnotations reads --annotation. What belongs to an image itself can't be changed without making another image of it.
func indexAnnotations(flags []string) (list []index.Annotation, err error) {
	for _, f := range flags {
		keys, value, err := request.ParseAnnotation(f)
		if err != nil {
			return nil, &usageErr{err}
		}
		for _, k := range keys {
			switch k.Type {
			case "", exptypes.AnnotationIndex:
				list = append(list, index.Annotation{Key: k.Key, Value: value})
			case exptypes.AnnotationManifestDescriptor:
				list = append(list, index.Annotation{Entry: true, Platform: k.Platform, Key: k.Key, Value: value})
			default:
				return nil, usagef("--annotation %s: an index has annotations of the types index and manifest-descriptor; others are for `optbuild build`", f)
			}
		}
	}
	return list, nil
}

func runIndexInspect(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef("index inspect takes one argument, a reference (got %d)", c.NArg())
	}
	r, err := indexes(c)
	if err != nil {
		return err
	}
	i, err := r.Inspect(c.Context, c.Args().First())
	switch {
	case err != nil:
		return err
	case c.Bool("raw"):
		_, err := c.App.Writer.Write(i.Raw)
		return err
	case c.Bool("json"):
		return printJSON(c.App.Writer, i)
	}
	printInspection(c.App.Writer, i)
	return nil
}

func printInspection(w io.Writer, i index.Inspection) {
	fmt.Fprintf(w, "Name:      %s\nMediaType: %s\nDigest:    %s\n", i.Name, visible(i.MediaType), i.Digest)
	printAnnotations(w, "", i.Annotated)
	fmt.Fprintln(w, "\nManifests:")
	for n, e := range i.Entries {
		if n > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "  Name:      %s\n  MediaType: %s\n  Platform:  %s\n", visible(e.Name), visible(e.MediaType), visible(e.Platform))
		printAnnotations(w, "  ", e.Annotations)
		for _, d := range e.Attestations {
			fmt.Fprintf(w, "  Attested:  %s (beside it)\n", visible(d.String()))
		}
		if e.Unlisted != "" {
			fmt.Fprintf(w, "  Attested:  the registry does not tell: %s\n", visible(e.Unlisted))
		}
	}
}

func printAnnotations(w io.Writer, indent string, m map[string]string) {
	if len(m) == 0 {
		return
	}
	fmt.Fprintln(w, indent+"Annotations:")
	for _, k := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(w, "%s  %s: %s\n", indent, visible(k), visible(m[k]))
	}
}
