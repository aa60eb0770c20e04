package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder"
	"github.com/optbuild/optbuild/builder/analyze"
	"github.com/optbuild/optbuild/builder/store"
)

// This file is for what a build finds out about its image: whether it keeps limits, and whether it comes out the same again.
//
//	--verify-reproducible            build, build again without the cache, compare: before anything goes out
//	--max-size, --max-waste          image for the local store alone: after the build, the image stays
//	                                 anything else: before anything goes out
//
// "Before" means that the image is first exported into the local store, without a name, where layers are kept once; then the build is made
// as it was asked for, with everything cached.

func checkFlags() []cli.Flag {
	return append(limitFlags(),
		&cli.BoolFlag{Name: "verify-reproducible", Usage: "build twice, the second time without the cache, and fail if the images differ"})
}

// checks are what a build was asked to find out.
type checks struct {
	limits       analyze.Limits
	reproducible bool
}

func (ck checks) any() bool { return ck.reproducible || ck.limits.Any() }

func checksOf(c *cli.Context) (ck checks, err error) {
	ck.reproducible = c.Bool("verify-reproducible")
	if ck.limits, err = limits(c); err != nil {
		return ck, err
	}
	if ck.reproducible && c.Args().First() == "-" {
		return ck, usagef("--verify-reproducible builds twice: the context can't come on standard input")
	}
	return ck, nil
}

// kept says that nothing leaves the local store, so that an image can be looked at after the build.
func (b *build) kept() bool {
	for _, e := range b.solve.Exports {
		push, _ := boolAttr(e, "push")
		stored, given := boolAttr(e, "store")
		if e.Type != client.ExporterImage || push || given && !stored || e.Attrs["name"] == "" {
			return false
		}
	}
	return len(b.solve.Exports) > 0
}

func boolAttr(e client.ExportEntry, key string) (on, given bool) {
	v, given := e.Attrs[key]
	return strings.EqualFold(v, "true") || v == "1", given
}

// checkBefore makes the checks that come before anything goes out.
func (b *build) checkBefore(ctx context.Context, conn *builder.Conn) error {
	if b.solve.Call != nil || !b.checks.any() || !b.checks.reproducible && b.kept() {
		return nil
	}
	s := conn.Store(store.Options{})
	before, err := s.Dangling(ctx)
	if err != nil {
		return conn.Explain(err)
	}
	forget := func(id digest.Digest) {
		if ferr := s.Forget(context.WithoutCancel(ctx), id); ferr != nil && err == nil {
			warn(ferr.Error())
		}
	}
	first, err := b.rehearse(ctx, conn, false)
	if err != nil {
		return err
	}
	if !before[first] {
		defer forget(first)
	}
	if b.checks.limits.Any() && !b.kept() {
		if err := b.checkLimits(ctx, s, first.String()); err != nil {
			return withHint(conn.Explain(err), "nothing was pushed or written; `optbuild build -t NAME` keeps such an image, and `optbuild analyze NAME` says where its bytes are")
		}
	}
	if !b.checks.reproducible {
		return nil
	}
	if err := nextSecond(ctx); err != nil {
		return err
	}
	second, err := b.rehearse(ctx, conn, true)
	if err != nil {
		return err
	}
	if !before[second] {
		defer forget(second)
	}
	return conn.Explain(b.compare(ctx, s, first, second))
}

// nextSecond waits for the clock's next second, which is what layers hold of times: steps of one second would seem to write the same time.
func nextSecond(ctx context.Context) error {
	now := time.Now()
	select {
	case <-time.After(now.Truncate(time.Second).Add(time.Second).Sub(now)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// notForRehearsals are attributes of outputs that say where they go.
var notForRehearsals = []string{"name", "push", "push-by-digest", "registry.insecure", "store", "unpack", "tar", "dangling-name-prefix", "context", "platform-split"}

// rehearse builds the image as it will be, into the local store, without a name.
func (b *build) rehearse(ctx context.Context, conn *builder.Conn, noCache bool) (digest.Digest, error) {
	attrs := map[string]string{}
	for _, e := range b.solve.Exports {
		switch e.Type {
		case client.ExporterImage, client.ExporterOCI, client.ExporterDocker:
			maps.Copy(attrs, e.Attrs)
		}
	}
	for _, key := range notForRehearsals {
		delete(attrs, key)
	}
	attrs["store"], attrs["dangling-name-prefix"] = "true", store.DanglingPrefix
	asked := b.solve.SolveOpt
	defer func() { b.solve.SolveOpt = asked }()
	b.solve.Exports = []client.ExportEntry{{Type: client.ExporterImage, Attrs: attrs}}
	b.solve.CacheExports = nil
	if noCache {
		b.solve.FrontendAttrs = maps.Clone(asked.FrontendAttrs)
		b.solve.FrontendAttrs["no-cache"] = ""
	}
	resp, _, err := b.run(ctx, conn)
	if err != nil {
		return "", err
	}
	return digest.Parse(resp.ExporterResponse[exptypes.ExporterImageDigestKey])
}

// checkAfter checks the limits of an image that stays in the local store.
func (b *build) checkAfter(ctx context.Context, conn *builder.Conn, resp *client.SolveResponse) error {
	if b.solve.Call != nil || !b.checks.limits.Any() || !b.kept() {
		return nil
	}
	return conn.Explain(b.checkLimits(ctx, conn.Store(store.Options{}), resp.ExporterResponse[exptypes.ExporterImageDigestKey]))
}

// openAll opens an image of the local store for all its platforms.
func openAll(ctx context.Context, s *store.Store, name, id string) (_ []analyze.Image, release func() error, err error) {
	opened, err := s.Open(ctx, id, nil)
	if err != nil {
		return nil, nil, err
	}
	all, err := analyze.OpenAll(ctx, name, opened.Blobs, opened.Root)
	if err != nil {
		_ = opened.Close()
	}
	return all, opened.Close, err
}

// shownName is what messages call the image that is built.
func (b *build) shownName() string {
	for _, e := range b.solve.Exports {
		if name, _, _ := strings.Cut(e.Attrs["name"], ","); name != "" {
			return store.Familiar(name)
		}
	}
	return "the image"
}

func (b *build) checkLimits(ctx context.Context, s *store.Store, id string) (err error) {
	all, release, err := openAll(ctx, s, b.shownName(), id)
	if err != nil {
		return err
	}
	defer func() {
		if rerr := release(); err == nil {
			err = rerr
		}
	}()
	var over []error
	for _, im := range all {
		if len(all) > 1 {
			im.Name += " (" + platforms.FormatAll(im.Config.Platform) + ")"
		}
		r, err := analyze.Analyze(ctx, im, analyze.Options{})
		if err != nil {
			return err
		}
		if err := b.checks.limits.Check(r); err != nil {
			over = append(over, err)
		}
	}
	return joinErrors(over)
}

// errNotReproducible is wrapped by the error of two builds that differ.
var errNotReproducible = errors.New("not reproducible")

func (b *build) compare(ctx context.Context, s *store.Store, first, second digest.Digest) (err error) {
	if first == second {
		warn("reproducible: built twice, once without the cache; both images are " + first.String())
		return nil
	}
	one, release, err := openAll(ctx, s, "the first build", first.String())
	if err != nil {
		return err
	}
	defer func() { _ = release() }()
	two, release2, err := openAll(ctx, s, "the second build", second.String())
	if err != nil {
		return err
	}
	defer func() { _ = release2() }()
	if len(one) != len(two) {
		return fmt.Errorf("%w: %d images, then %d", errNotReproducible, len(one), len(two))
	}
	for i := range one {
		d, err := analyze.Compare(ctx, one[i], two[i])
		if err != nil {
			return err
		}
		if d == nil {
			continue
		}
		err = fmt.Errorf("%w: %s", errNotReproducible, d)
		if len(one) > 1 {
			err = fmt.Errorf("%w: %s: %s", errNotReproducible, platforms.FormatAll(one[i].Config.Platform), d)
		}
		if d.TimesOnly {
			return withHint(err, "only times differ: --epoch=git, --epoch=SECONDS or SOURCE_DATE_EPOCH sets them; what a step made before that time keeps its own")
		}
		return withHint(err, "the step writes something else each time that it runs; nothing was pushed or written")
	}
	warn("reproducible: built twice, once without the cache; the images are the same, what is said about them (attestations) is not")
	return nil
}
