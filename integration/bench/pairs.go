package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// pair is a project whose naive Dockerfile optbuild builds, and stock BuildKit that and the one that an expert wrote: from nothing to an image in a
// registry, compressed with gzip.
type pair struct {
	*bench
	name    string
	project *lazily
	base    string   // the image that the last stage is FROM, "" for scratch
	apt     bool     // installs Debian's packages
	needs   []string // files that the image must have, whatever it was built with
}

// pairCases are about the image as a whole. They empty the registry.
func (b *bench) pairCases() (list []*one) {
	for _, p := range []*pair{
		{name: "debian", project: b.once(debianProject), base: "debian:12", apt: true,
			needs: []string{"usr/bin/python3", "usr/bin/curl", "usr/bin/vim.basic", "usr/local/bin/flask"}},
		{name: "npm", project: b.once(npmProject), base: node.image(), needs: []string{"app/dist/app.js", "app/node_modules/bench-99/lib/99.js"}},
		{name: "go", project: b.once(goProject), needs: []string{"app"}},
		{name: "java", project: b.once(javaProject), base: "debian:12", apt: true, needs: []string{"app.jar", "usr/bin/java"}},
		{name: "flask", project: b.once(flaskProject), base: python.image(), needs: []string{"app/app.py", "usr/local/bin/flask"}},
		{name: "static", project: b.once(staticProject), base: "debian:12", apt: true,
			needs: []string{"usr/sbin/nginx", "var/www/html/docs/39/1999.html", "var/www/html/pictures/199.jpg"}},
	} {
		p.bench = b
		list = append(list, &one{name: "pair-" + p.name, prepare: p.project.make, rows: p.rows})
	}
	return list
}

// pairFigures are those of one build.
type pairFigures struct {
	took, used   time.Duration
	export       time.Duration // what of took is after the last step
	bytes, above int64         // of the layers, compressed; of those that lie on the base image
	layers       int           // those
}

func (p *pair) rows(ctx context.Context, runs int) ([]Result, error) {
	sides := []struct {
		ref, file string
		ours      bool
	}{
		{"ours", p.project.naive, true},
		{"stock", p.project.naive, false},
		{"by-hand", p.project.byHand, false},
	}
	if p.apt { // fetches what all of them install
		if err := p.build(ctx, "", p.project.naive, false, nil); err != nil {
			return nil, err
		}
	}
	var figures [3][]pairFigures
	for i := range max(1, runs/3) {
		for k := range sides {
			k = (k + i) % len(sides)
			s := sides[k]
			var f pairFigures
			if err := p.build(ctx, s.ref, s.file, s.ours, &f); err != nil {
				return nil, err
			}
			if err := p.read(s.ref, &f, i == 0); err != nil {
				return nil, fmt.Errorf("%s: %w", s.ref, err)
			}
			figures[k] = append(figures[k], f)
		}
	}
	row := func(what, unit, against string, bound float64, of func(pairFigures) float64) Result {
		other := 2
		if against == "stock" {
			other = 1
		}
		var values [2][]float64
		for i, k := range []int{0, other} {
			for _, f := range figures[k] {
				values[i] = append(values[i], of(f))
			}
		}
		r := summarise("pair-"+p.name+", "+what, unit, values[0], values[1], bound)
		r.Against = against
		return r
	}
	took := func(f pairFigures) float64 { return f.took.Seconds() }
	exported := func(f pairFigures) float64 { return f.export.Seconds() }
	used := func(f pairFigures) float64 { return f.used.Seconds() }
	return []Result{
		row("bytes", "MB", "by hand", 1.02, func(f pairFigures) float64 { return float64(f.bytes) / 1e6 }),
		row("bytes above the base", "MB", "by hand", 0, func(f pairFigures) float64 { return float64(f.above) / 1e6 }),
		row("bytes above the base", "MB", "stock", 0, func(f pairFigures) float64 { return float64(f.above) / 1e6 }),
		row("layers", "layers", "by hand", 0, func(f pairFigures) float64 { return float64(f.layers) }),
		row("cold build to push", "s", "by hand", 0.8, took),
		row("cold build to push", "s", "stock", 0.8, took),
		row("export after the last step", "s", "by hand", 0, exported),
		row("export after the last step", "s", "stock", 0.15, exported),
		row("processor time", "s of CPU", "by hand", 0, used),
		row("processor time", "s of CPU", "stock", 0, used),
	}, nil
}

// build builds from nothing and pushes, if there is a name to push to.
func (p *pair) build(ctx context.Context, ref, file string, ours bool, f *pairFigures) error {
	root := filepath.Join(p.Dir, "pair")
	if err := errors.Join(p.discard(ctx, root), p.emptyRegistry(ctx), p.emptyDaemon(ctx)); err != nil {
		return err
	}
	args, err := p.arguments(ref, file, ours)
	if err != nil {
		return err
	}
	if _, err := orphansTime(p.daemon.Process.Pid); err != nil {
		return err
	}
	var export time.Duration
	took, used, _, err := timed(side{
		command: func() *exec.Cmd {
			if ours {
				return p.optbuildAs("", root, args...)
			}
			return p.buildctl(args...)
		},
		printed: func(progress []byte) (err error) {
			if f != nil {
				export, err = beyondSolve(progress)
			}
			return err
		},
	}, false)
	if err != nil || f == nil {
		return err
	}
	late, err := orphansTime(p.daemon.Process.Pid)
	if err != nil {
		return err
	}
	f.took, f.used, f.export = took, used+late, export
	if !ours { // the daemon has done nothing else
		daemon, err := familyTime(p.daemon.Process.Pid)
		if err != nil {
			return err
		}
		f.used += daemon
	}
	return nil
}

// arguments are those of optbuild or of buildctl.
func (p *pair) arguments(ref, file string, ours bool) (args []string, err error) {
	var variables []string
	if p.apt {
		proxy, err := p.proxy()
		if err != nil {
			return nil, err
		}
		variables = []string{"http_proxy=" + proxy, "no_proxy=127.0.0.1"}
	}
	dir := p.project.dir
	if ours {
		args = []string{"build", "--progress=rawjson", "--push", "-t", p.reference(ref), "-f", file}
		for _, v := range variables {
			args = append(args, "--build-arg", v)
		}
		return append(args, dir), nil
	}
	args = []string{"build", "--progress=rawjson", "--frontend=dockerfile.v0", "--local=context=" + dir, "--local=dockerfile=" + filepath.Dir(file),
		"--opt=filename=" + filepath.Base(file)}
	for _, v := range variables {
		args = append(args, "--opt=build-arg:"+v)
	}
	if ref != "" {
		args = append(args, "--output=type=image,push=true,name="+p.reference(ref))
	}
	return args, nil
}

func (p *pair) reference(ref string) string { return p.registry + "/pair:" + ref }

// read fills in what can be seen of the pushed image, and, if asked for, looks whether it has what it must have.
func (p *pair) read(ref string, f *pairFigures, check bool) error {
	img, err := pulled(p.reference(ref))
	if err != nil {
		return err
	}
	layers, err := layersOf(img)
	if err != nil {
		return err
	}
	var below []v1.Descriptor
	if p.base != "" {
		base, err := pulled(p.registry + "/library/" + p.base)
		if err != nil {
			return err
		}
		if below, err = layersOf(base); err != nil {
			return err
		}
	}
	for i, l := range layers {
		f.bytes += l.Size
		if i < len(below) {
			if l.Digest != below[i].Digest {
				return fmt.Errorf("layer %d is not the one of %s", i+1, p.base)
			}
			continue
		}
		f.above += l.Size
		f.layers++
	}
	if !check {
		return nil
	}
	return holds(img, p.needs)
}

func pulled(ref string) (v1.Image, error) {
	r, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		return nil, err
	}
	return remote.Image(r)
}

func layersOf(img v1.Image) ([]v1.Descriptor, error) {
	m, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	return m.Layers, nil
}

// holds is an error if an image lacks one of the files.
func holds(img v1.Image, files []string) error {
	missing := map[string]bool{}
	for _, f := range files {
		missing[f] = true
	}
	flat := mutate.Extract(img)
	defer flat.Close()
	for r := tar.NewReader(flat); len(missing) > 0; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("the image lacks %v", missing)
		}
		if err != nil {
			return err
		}
		delete(missing, strings.TrimPrefix(h.Name, "./"))
	}
	return nil
}
