package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/docker/go-units"
	"github.com/moby/buildkit/util/compression"
	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder/compress"
	"github.com/optbuild/optbuild/builder/store"
)

func convertCommand() *cli.Command {
	return &cli.Command{
		Name:      "convert",
		Usage:     "make an image with the same files whose layers are compressed in another way",
		ArgsUsage: "IMAGE NEW",
		Flags: append(transferFlags(),
			&cli.StringFlag{Name: "compression", Usage: "gzip, zstd, estargz or zstd:chunked (pulled lazily), or uncompressed"},
			&cli.StringFlag{Name: "compression-level", Usage: "`LEVEL`: 0 to 9 for gzip and estargz, 1 to 22 for zstd and zstd:chunked"},
			&cli.BoolFlag{Name: "push", Usage: "push the new image"},
			platformFlag("convert one `PLATFORM` of the image, without its index")),
		Action: runConvert,
	}
}

func runConvert(c *cli.Context) error {
	if c.NArg() != 2 {
		return usagef("convert takes two arguments: an image, and a name for the new one (got %d)", c.NArg())
	}
	from, to := c.Args().Get(0), c.Args().Get(1)
	if _, err := store.ParseName(to); err != nil {
		return &usageErr{err}
	}
	p, err := onePlatform(c)
	if err != nil {
		return err
	}
	comp, err := compressionFlags(c)
	if err != nil {
		return err
	}
	var done store.Converted
	err = withTransfers(c, "Converting", func(ctx context.Context, s *store.Store) (err error) {
		if done, err = s.Convert(ctx, from, to, store.ConvertOptions{Compression: comp, Platform: p}); err != nil || !c.Bool("push") {
			return err
		}
		_, err = s.Push(ctx, to, store.PushOptions{})
		return err
	})
	if err != nil {
		return err
	}
	if len(done.Left) > 0 {
		warn(fmt.Sprintf("%s: left out %s of the index: attestations are about the old digests, and platforms that are not here can't be converted", store.Familiar(done.Name), count(len(done.Left), "manifest")))
	}
	if !c.Bool("quiet") {
		note := fmt.Sprintf("%d of %s converted, %s instead of %s", done.Changed, count(done.Layers, "layer"), units.HumanSize(float64(done.After)), units.HumanSize(float64(done.Before)))
		if _, err := fmt.Fprintln(c.App.ErrWriter, note); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintln(c.App.Writer, done.Target.Digest)
	return err
}

// compressionFlags reads --compression and --compression-level.
func compressionFlags(c *cli.Context) (comp compression.Config, err error) {
	if c.String("compression") == "" {
		return comp, usagef("convert needs --compression: gzip, zstd, estargz, zstd:chunked or uncompressed")
	}
	f, err := compress.Parse(c.String("compression"))
	if err != nil {
		return comp, usagef("--compression: %w", err)
	}
	if comp.Type, err = compress.New(f, compress.Options{}); err != nil {
		return comp, err
	}
	if v := c.String("compression-level"); v != "" {
		n, err := strconv.Atoi(v)
		if err == nil {
			err = f.CheckLevel(n)
		}
		if err != nil {
			return comp, usagef("--compression-level %s: %w", v, err)
		}
		comp.Level = &n
	}
	return comp, nil
}
