package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/optbuild/optbuild/integration/bases"
	"github.com/optbuild/optbuild/integration/wan"
)

// coldCases are about a CI runner: it has nothing, its registry is at the end of a link of 100 Mbit/s and 20 ms, and in that is the cache of a build that
// another machine made an hour ago. optbuild builds the naive Dockerfile, stock BuildKit that and the one by hand; all push the image. What steps download
// comes over the link, too. Three things may have happened since: one source file changed, nothing, or the list of dependencies did.
func (b *bench) coldCases() (list []*one) {
	g := &coldGround{}
	for _, since := range []coldChange{{"", (*coldProject).change, 0.4}, {"nothing-", nil, 0}, {"manifest-", (*coldProject).drop, 0.6}} {
		for _, p := range []*coldProject{
			{name: "npm", generate: npmProject, drop1: dropNpm, made: "app/dist/app.js"},
			{name: "apt", generate: aptProject, drop1: dropApt, made: "srv/www/index.html"},
			{name: "go", generate: goProject, drop1: dropGo, made: "app", binary: true},
		} {
			c := &cold{ground: g, project: p, since: since}
			c.name = "cold-runner-" + since.name + p.name
			list = append(list, &one{name: c.name, rows: c.rows, prepare: func(ctx context.Context) error {
				if err := g.make(ctx, b); err != nil {
					return err
				}
				c.bench = g.bench
				return g.write(ctx, p)
			}})
		}
	}
	return append(list, g.cacheExportCases(b)...)
}

// coldFlags are the ones that make optbuild write a cache, and read it.
var coldFlags = struct{ write, read func(ref string) []string }{
	write: func(ref string) []string { return []string{"--cache", ref + ",scope=main"} },
	read:  func(ref string) []string { return []string{"--cache", ref + ",scope=main,mode=ro"} },
}

// coldChange is what happened after the cache was written.
type coldChange struct {
	name   string
	change func(*coldProject, *project) error
	bound  float64 // of the ratio of times to the one by hand
}

// cold is one case.
type cold struct {
	*bench
	ground  *coldGround
	project *coldProject
	since   coldChange
	name    string
}

// coldSides are what is compared. Each has a cache and an image of its own in the registry.
var coldSides = []struct {
	name   string
	ours   bool
	byHand bool
}{{"ours", true, false}, {"stock", false, false}, {"by-hand", false, true}}

// coldGround is what the cases share: a registry that is far away, buildkitd and state directories that know no other, and projects with their caches. What was
// written by one case is there for the others: readers change nothing in it.
type coldGround struct {
	*bench
	far     *wan.Registry
	others  []int // processes that are no part of what is measured
	written map[string]*coldProject
}

func (g *coldGround) make(ctx context.Context, b *bench) error {
	if g.bench != nil {
		return nil
	}
	own := &bench{options: b.options, hub: newHub(), pushed: map[string]bool{}}
	own.Dir = filepath.Join(b.Dir, "cold")
	blobs := filepath.Join(own.Dir, "registry")
	if err := os.MkdirAll(blobs, 0o711); err != nil {
		return err
	}
	far, err := wan.Serve(wan.NewStore(blobs), wan.Profile{})
	if err != nil {
		return err
	}
	own.undo = append(own.undo, func() { far.Close() }, own.stopDaemon)
	own.registry, own.link = far.Addr, far.Link
	b.undo = append(b.undo, own.close)
	cache, err := bases.CacheDir()
	if err != nil {
		return err
	}
	debian, err := bases.Debian(ctx, cache)
	if err != nil {
		return err
	}
	for _, name := range []string{"debian", "library/debian:12"} {
		debian.Name = name
		if err := own.offer(ctx, debian); err != nil {
			return err
		}
	}
	if err := errors.Join(own.mirror(), own.startDaemon(ctx)); err != nil {
		return err
	}
	g.bench, g.far, g.others, g.written = own, far, []int{b.daemon.Process.Pid}, map[string]*coldProject{}
	return nil
}

// write makes a project and, on a link without bounds, the caches and images of each side.
func (g *coldGround) write(ctx context.Context, p *coldProject) error {
	if made := g.written[p.name]; made != nil {
		p.project = made.project
		return nil
	}
	var err error
	if p.project, err = p.generate(ctx, g.bench); err != nil {
		return err
	}
	root := filepath.Join(g.Dir, "writer")
	if err := g.discard(ctx, root); err != nil {
		return err
	}
	for _, s := range coldSides {
		var c *exec.Cmd
		if s.ours {
			c = g.optbuildAs("", root, append(g.optbuildArguments(p.project, p.image(g, s.name)), coldFlags.write(p.cache(g, s.name))...)...)
		} else {
			if err := g.emptyDaemon(ctx); err != nil {
				return err
			}
			c = g.buildctl(append(g.stockArguments(p.project, p.image(g, s.name), s.byHand),
				"--export-cache=type=registry,mode=max,ref="+p.cache(g, s.name))...)
		}
		if err := execute(c); err != nil {
			return err
		}
	}
	g.written[p.name] = p
	return nil
}

func (g *coldGround) optbuildArguments(p *project, image string) []string {
	return []string{"build", "--progress=plain", "--push", "-t", image, "-f", p.naive, p.dir}
}

func (g *coldGround) stockArguments(p *project, image string, byHand bool) []string {
	file := p.naive
	if byHand {
		file = p.byHand
	}
	return []string{"build", "--progress=plain", "--frontend=dockerfile.v0", "--local=context=" + p.dir, "--local=dockerfile=" + filepath.Dir(file),
		"--opt=filename=" + filepath.Base(file), "--output=type=image,push=true,name=" + image}
}

// coldFigures are those of one runner.
type coldFigures struct {
	took           time.Duration
	received, sent int64 // over the link, bytes of payload
	layers         int64 // bytes of blobs among those received from the registry
	requests       int   // to the registry
}

func (c *cold) rows(ctx context.Context, runs int) ([]Result, error) {
	figures := make([][]coldFigures, len(coldSides))
	for i := range max(1, runs/3) {
		for k := range coldSides {
			k = (k + i) % len(coldSides)
			f, err := c.run(ctx, k)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", coldSides[k].name, err)
			}
			fmt.Fprintf(os.Stderr, "  %s: %.1f s, %d bytes received (%d of them blobs), %d sent, %d requests\n",
				coldSides[k].name, f.took.Seconds(), f.received, f.layers, f.sent, f.requests)
			figures[k] = append(figures[k], f)
		}
	}
	values := func(k int, of func(coldFigures) float64) (v []float64) {
		for _, f := range figures[k] {
			v = append(v, of(f))
		}
		return v
	}
	var rows []Result
	for _, m := range []struct {
		what, unit string
		bound      float64 // of the ratio to the one by hand
		absolute   float64 // when nothing changed
		of         func(coldFigures) float64
	}{
		{"time", "s", c.since.bound, 1, func(f coldFigures) float64 { return f.took.Seconds() }},
		{"received", "KB", 0, 65.536, func(f coldFigures) float64 { return float64(f.received) / 1e3 }},
		{"blobs received", "KB", 0, 0, func(f coldFigures) float64 { return float64(f.layers) / 1e3 }},
		{"sent", "KB", 0, 0, func(f coldFigures) float64 { return float64(f.sent) / 1e3 }},
		{"requests", "requests", 0, 0, func(f coldFigures) float64 { return float64(f.requests) }},
	} {
		stock := summarise(c.name+", "+m.what, m.unit, values(0, m.of), values(1, m.of), 0)
		byHand := summarise(c.name+", "+m.what, m.unit, values(0, m.of), values(2, m.of), m.bound)
		byHand.Against = "by hand"
		for _, r := range []Result{stock, byHand} {
			if r.Stock == 0 { // there is no ratio to nothing
				r.Ratio, r.Spread, r.Best, r.Worst, r.Low, r.High = 0, 0, 0, 0, 0, 0
			}
			rows = append(rows, r)
		}
		if c.since.change == nil && m.absolute > 0 {
			rows = append(rows, summarise(c.name+", "+m.what, m.unit, values(0, m.of), nil, m.absolute))
		}
	}
	return rows, nil
}

// run is one runner: an empty state, a fresh checkout with what has changed, and the slow link.
func (c *cold) run(ctx context.Context, k int) (f coldFigures, err error) {
	g, s := c.ground, coldSides[k]
	root := filepath.Join(g.Dir, "runner")
	if err := g.discard(ctx, root); err != nil { // the last runner's
		return f, err
	}
	p, err := c.project.checkout(filepath.Join(g.Dir, g.next("checkout")))
	if err != nil {
		return f, err
	}
	if c.since.change != nil {
		if err := c.since.change(c.project, p); err != nil {
			return f, err
		}
	}
	command := func() *exec.Cmd {
		image, cache := c.project.image(g, s.name), c.project.cache(g, s.name)
		if s.ours {
			return g.optbuildAs("", root, append(g.optbuildArguments(p, image), coldFlags.read(cache)...)...)
		}
		return g.buildctl(append(g.stockArguments(p, image, s.byHand), "--import-cache=type=registry,ref="+cache)...)
	}
	if !s.ours {
		if err := g.emptyDaemon(ctx); err != nil {
			return f, err
		}
	}
	g.far.Link.Set(wan.Runner)
	defer g.far.Link.Set(wan.Profile{})
	g.far.Reset()
	if f.took, _, _, err = timed(side{command: command}, false); err != nil {
		return f, err
	}
	if _, err := orphansTime(append(g.others, g.daemon.Process.Pid)...); err != nil { // of what an engine sends after its command has ended
		return f, err
	}
	traffic, counts := g.far.Traffic(), g.far.Counts()
	f.received, f.sent, f.layers, f.requests = traffic.Received, traffic.Sent, counts.BlobBytes, counts.Requests
	g.far.Link.Set(wan.Profile{})
	return f, c.check(c.project.image(g, s.name), p)
}

// check looks whether the image was made of the files as they are now.
func (c *cold) check(ref string, p *project) error {
	img, err := pulled(ref)
	if err != nil {
		return err
	}
	content, err := contentOf(img, c.project.made)
	if err != nil || c.project.binary {
		return err
	}
	source, err := os.ReadFile(filepath.Join(p.dir, p.edit))
	if err != nil {
		return err
	}
	if !bytes.Contains(content, source) {
		return fmt.Errorf("%s is not made of %s as it is now", c.project.made, p.edit)
	}
	return nil
}

// contentOf reads a file of an image.
func contentOf(img v1.Image, path string) ([]byte, error) {
	flat := mutate.Extract(img)
	defer flat.Close()
	for r := tar.NewReader(flat); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("the image lacks %s", path)
		}
		if err != nil {
			return nil, err
		}
		if filepath.Clean(h.Name) == path {
			return io.ReadAll(r)
		}
	}
}
